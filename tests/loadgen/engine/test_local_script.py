"""A load started from a user's script, and what becomes of its workers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import psutil
import pytest

from loadgen.simulator import SimulatorProcess
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with SimulatorProcess() as process:
        yield process.url


SCRIPT = """
import sys
from loadgen import ClosedLoop, Readings, Request, generate_load
requests = (Request(index=i, model=sys.argv[2], prompt=f"{i}", options={"num_predict": 30}) for i in range(1_000_000))
readings = Readings()
seen = 0
for record in generate_load(requests, ClosedLoop(concurrency=4), host=sys.argv[1], workers=2, readings=readings):
    assert record.error is None, record
    seen += 1
    if seen == 8:
        print(*readings.pids, flush=True)
        if sys.argv[3] == "leave":
            break
"""


@contextlib.contextmanager
def script(tmp_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    path = tmp_path / "no_main_guard.py"
    path.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, path, *arguments], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_script_without_a_main_guard_works_and_leaves_at_any_time(url: str, tmp_path: Path) -> None:
    with script(tmp_path, url, "sim:fast", "leave") as process:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    pids = [int(pid) for pid in out.split()]
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(url: str, tmp_path: Path) -> None:
    with script(tmp_path, url, "llama3.2:1b", "stay") as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        workers = [psutil.Process(pid) for pid in pids]
        process.kill()
        process.wait()
        tick = threading.Event()
        until_s = monotonic() + 8  # what was handed out already would keep them busy for longer
        while any(map(runs, workers)) and monotonic() < until_s:
            tick.wait(0.02)
    assert len(pids) == 2
    assert not any(map(runs, workers))


def runs(process: psutil.Process) -> bool:
    """Nobody may be there to reap an orphan: a zombie has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
