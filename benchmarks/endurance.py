"""What grows: memory of each process, descriptors and file size over very many requests, and over very many cells.

Run as ``python -m benchmarks.endurance [REQUESTS] [CELLS] [SECONDS]`` (300,000, 2,000 and 180 by default; 0 leaves a
trial out; with a dozen cores they run side by side). The first two are of records that are made up, since a server
would be the bottleneck; the third sends to the simulated server. Each figure is the median of a third of the time; exit
code 1 if memory grows by more than 5 % from the first to the last third, or descriptors are left open.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from loadgen import engine
from loadgen.engine import Orders, Readings
from loadgen.types import Request, RequestRecord
from structbench import cli
from structbench.store import Reader

_PERIOD_S = 0.25
_MOST = 1.05
_FEW = 3
"""Descriptors that are open for moments: the database, the spool's file, a scrape."""
_RATE = 2000
"""Made-up requests a second, so that the writer of the database keeps up."""
_CORES = 12
"""From so many on, the trials run side by side: each takes two or three."""
_ROLES = {"local_worker": "worker", "scoring.process": "scorer", "simulator": "server"}
_SHORT = ("--suites", "numbers", "--models", "sim:fast", "--simulate", "--quiet")


@dataclass(slots=True)
class Watched:
    """Samples of a command: memory of each process and descriptors, bytes of the file and beside it, rows so far."""

    memory: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    descriptors: list[tuple[float, int]] = field(default_factory=list)
    file: list[tuple[float, int]] = field(default_factory=list)
    beside: list[int] = field(default_factory=list)
    rows: list[tuple[float, int]] = field(default_factory=list)
    code: int = 0


def watch(command: Sequence[str], db: Path) -> Watched:
    """Run the command, which prints its number of rows now and then, and sample it and its children."""
    seen = Watched()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=_read_rows, args=(process.stdout, seen), daemon=True)
        reader.start()
        while process.poll() is None:
            now = time.monotonic()
            with suppress(psutil.Error, FileNotFoundError):
                parent = psutil.Process(process.pid)
                for each in (parent, *parent.children(recursive=True)):
                    seen.memory[_role(each, parent)].append((now, each.memory_info().rss))
                seen.descriptors.append((now, parent.num_fds()))
                seen.file.append((now, db.stat().st_size))
                files = [each for each in db.parent.rglob("*") if each.is_file() and each != db]
                seen.beside.append(sum(each.stat().st_size for each in files))
            time.sleep(_PERIOD_S)
        reader.join()
        seen.code = process.returncode
    return seen


def _read_rows(lines: Iterable[str], seen: Watched) -> None:
    for line in lines:
        if line.strip().isdigit() and int(line) > (seen.rows[-1][1] if seen.rows else 0):  # from the first to the last
            seen.rows.append((time.monotonic(), int(line)))


def _role(process: psutil.Process, parent: psutil.Process) -> str:
    words = " ".join(process.cmdline())
    return "load" if process == parent else next((role for mark, role in _ROLES.items() if mark in words), "other")


def thirds(samples: Sequence[tuple[float, int]], began: float, ended: float) -> list[float]:
    """Return the median of each third of that time; fewer than three where nothing was sampled."""
    width = (ended - began) / 3
    found = [[value for at, value in samples if began + i * width <= at < began + (i + 1) * width] for i in range(3)]
    return [median(values) for values in found if values]


def judge(what: str, seen: Watched, stored: int) -> list[str]:
    """Print the figures of one trial, and return what grows."""
    began, ended = seen.rows[0][0], seen.rows[-1][0]
    grows = [] if seen.code == 0 else [f"exit code {seen.code}"]
    print(f"\n{what}: {stored:,} requests stored, {ended - began:.0f} s")
    for role, samples in sorted(seen.memory.items()):
        values = thirds(samples, began, ended)
        if len(values) == 3 and role != "server":
            most = max((value for at, value in samples if at >= ended), default=samples[-1][1])
            print(f"  {role:<12}{', '.join(f'{value / 2**20:.1f}' for value in values)} MiB by thirds, "
                  f"last to first {values[2] / values[0]:.3f}; at the end at most {most / 2**20:.1f} MiB")  # fmt: skip
            if values[2] > _MOST * values[0]:
                grows.append(f"memory of {role}")
    opened = thirds(seen.descriptors, began, ended)
    print(f"  descriptors {', '.join(f'{value:.0f}' for value in opened)}")
    if opened[-1] > opened[0] + _FEW:
        grows.append("descriptors")
    rates, sizes = [], []
    for i in range(3):
        first, last = (_at(seen, began + (ended - began) * j / 3) for j in (i, i + 1))
        rates.append((last[1] - first[1]) / (last[0] - first[0]))
        sizes.append((last[2] - first[2]) / max(1, last[1] - first[1]))
    print(f"  rate        {', '.join(f'{rate:,.0f}' for rate in rates)} requests/s by thirds")
    print(f"  file        {', '.join(f'{size:,.0f}' for size in sizes)} bytes a request by thirds; at most "
          f"{max(seen.beside) / 1e6:,.1f} MB waited beside it")  # fmt: skip
    print(f"  {'grows: ' + ', '.join(grows) if grows else 'nothing grows'}", flush=True)
    return grows


def _at(seen: Watched, instant: float) -> tuple[float, int, int]:
    """Return the sample of rows that is nearest to the instant, with the file's size then."""
    at, rows = min(seen.rows, key=lambda each: abs(each[0] - instant))
    return at, rows, min(seen.file, key=lambda each: abs(each[0] - at))[1]


def made_up(requests: Iterable[Request], _load: object, **given: Any) -> Iterator[RequestRecord]:
    """Answer each request at once, in the place of ``generate_load``."""
    readings: Readings = given["readings"]
    orders: Orders = given["orders"]
    readings.started_ns = time.monotonic_ns()
    for number, request in enumerate(requests):
        if orders.stop:
            return
        time.sleep(max(0.0, readings.started_ns / 1e9 + number / _RATE - time.monotonic()))
        now = time.monotonic_ns()
        yield RequestRecord(
            index=request.index, worker=0, due_ns=now - 9_000_000, sent_ns=now - 9_000_000, sent_off_ns=0, end_ns=now,
            chunk_ns=(now - 5_000_000, now), chunk_early_ns=(), clock="kernel", output_tokens=3, output_text="42",
            done_reason="stop", prompt_tokens=20,
        )  # fmt: skip


def load(words: Sequence[str], send: Callable[..., Iterator[RequestRecord]]) -> int:
    """Run ``structbench load`` with these words in this process, its requests answered by ``send``; print rows."""
    rows = 0

    def counted(requests: Iterable[Request], load: object, **given: Any) -> Iterator[RequestRecord]:
        nonlocal rows
        for record in send(requests, load, **given):
            rows += 1
            yield record

    def tell() -> None:
        while True:
            time.sleep(_PERIOD_S)
            print(rows, flush=True)

    import_module("structbench.run.segment").__dict__["generate_load"] = counted
    threading.Thread(target=tell, daemon=True).start()
    return cli.main(["load", *words])


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def trial(words: Sequence[str]) -> tuple[Watched, int]:
    """Watch a load with these words into a file of its own; return what was seen, and how many rows the file has."""
    with TemporaryDirectory() as folder:
        db = Path(folder) / "s.duckdb"
        more = [*_SHORT, "--metrics-port", _free_port(), "--db", str(db)]
        seen = watch([sys.executable, "-m", "benchmarks.endurance", *words, *more], db)
        with Reader(db) as reader:
            (found,) = reader.query("SELECT count(*) AS rows FROM requests")
        return seen, found["rows"]


def main(requests: int, cells: int, seconds: float) -> int:
    """Run the three trials; return 1 if anything grows."""
    trials = {
        f"{requests:,} requests in one run, made up":
            ["--made-up", "--requests", str(requests), "--concurrency", "32"] if requests else [],
        f"{cells:,} cells in one file, made up":
            ["--made-up", "--requests", "10", "--concurrency", *map(str, range(1, cells + 1))] if cells else [],
        f"{seconds:g} s against the simulated server":
            ["--sent", "--duration", f"{seconds:g}", "--concurrency", "32"] if seconds else [],
    }  # fmt: skip
    asked = {what: words for what, words in trials.items() if words}
    with ThreadPoolExecutor(len(trials) if (os.cpu_count() or 1) >= _CORES else 1) as side_by_side:
        found = side_by_side.map(trial, asked.values())
        grows = [each for what, (seen, stored) in zip(asked, found, strict=True) for each in judge(what, seen, stored)]
    return 1 if grows else 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--made-up", *words]:
            sys.exit(load(words, made_up))
        case ["--sent", *words]:
            sys.exit(load(words, engine.generate_load))
        case words:
            given = [*words, *["300000", "2000", "180"][len(words) :]]
            sys.exit(main(int(given[0]), int(given[1]), float(given[2])))
