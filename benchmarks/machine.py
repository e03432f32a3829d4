"""Measuring the machine, and what a command uses of it, from outside.

Every figure counts the command and all its descendants, never the server or this process.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from structbench.run.hardware import hardware

NS = 1_000_000_000
_PERIOD_S = 0.25
QUIET_CORES = 0.15
"""Cores that other processes may use without disturbing a run."""


@dataclass(frozen=True, slots=True)
class TreeSample:
    """The process tree at one instant; ``cpu_s`` is that of the processes then alive."""

    at_ns: int
    cpu_s: float
    rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a command used from its start to its end."""

    started_ns: int
    wall_s: float
    cpu_s: float
    """User and system time of the command and all descendants that it waited for."""
    others_cores: float
    """Cores that other processes used: not the command, the server or this process."""
    samples: tuple[TreeSample, ...]
    exit_code: int
    output: str

    @property
    def rss_max_bytes(self) -> int:
        """The largest sum of resident memory over the tree; shared pages count in each."""
        return max((sample.rss_bytes for sample in self.samples), default=0)

    def cpu_before_s(self, instant_ns: int) -> float:
        """Return the processor time used up to an instant, from the last sample before it."""
        return max((sample.cpu_s for sample in self.samples if sample.at_ns <= instant_ns), default=0.0)

    def rss_thirds(self, first_ns: int, last_ns: int) -> list[list[int]]:
        """Return the resident bytes in each third of a span of time."""
        third = (last_ns - first_ns) / 3
        starts = [first_ns + third * i for i in range(3)]
        found = [[s.rss_bytes for s in self.samples if start <= s.at_ns < start + third] for start in starts]
        if not all(found):
            raise ValueError("the run is too short to compare its thirds")
        return found


def run(command: Sequence[str], *, server_pid: int | None = None, cwd: Path | None = None) -> Usage:
    """Run the command to its end, sampling its process tree four times a second."""
    before, others_before = _children_cpu_s(), _others_cpu_s(server_pid)
    started_ns = time.monotonic_ns()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd)
    watch = _TreeSampler(process.pid)
    try:
        with watch:
            output, _ = process.communicate()
    except BaseException:
        process.kill()  # its own children end when it is gone
        process.wait()
        raise
    wall_s = (time.monotonic_ns() - started_ns) / NS
    cpu_s = _children_cpu_s() - before
    others = max(0.0, _others_cpu_s(server_pid) - others_before - cpu_s) / wall_s
    return Usage(
        started_ns=started_ns, wall_s=wall_s, cpu_s=cpu_s, others_cores=others, samples=tuple(watch.samples),
        exit_code=process.returncode, output=output.decode(errors="replace"),
    )  # fmt: skip


@dataclass(slots=True)
class _TreeSampler:
    pid: int
    samples: list[TreeSample] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread = field(init=False)

    def __enter__(self) -> _TreeSampler:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _run(self) -> None:
        while not self.ended.wait(_PERIOD_S):
            try:
                root = psutil.Process(self.pid)
                tree = [root, *root.children(recursive=True)]
            except psutil.Error:
                return
            cpu_s, rss = 0.0, 0
            for process in tree:
                try:
                    times = process.cpu_times()
                    cpu_s += times.user + times.system
                    rss += process.memory_info().rss
                except psutil.Error:
                    continue
            self.samples.append(TreeSample(time.monotonic_ns(), cpu_s, rss))


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _others_cpu_s(server_pid: int | None) -> float:
    """Return the processor time of the machine without the server and this process (with children)."""
    times = psutil.cpu_times()
    busy: float = times.user + times.nice + times.system + times.irq + times.softirq
    own = os.times()
    busy -= own.user + own.system
    if server_pid is not None:
        server = psutil.Process(server_pid).cpu_times()
        busy -= server.user + server.system
    return busy


def wait_until_quiet(limit_s: float) -> bool:
    """Wait until the processors are quiet for two seconds; return False if time ran out."""
    deadline = time.monotonic() + limit_s
    while psutil.cpu_percent(2.0) / 100 * (psutil.cpu_count() or 1) > QUIET_CORES:
        if time.monotonic() > deadline:
            return False
    return True


def describe() -> str:
    """Describe the machine in one line."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{psutil.cpu_count()} cores ({hardware().get('processor', '')}), {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )
