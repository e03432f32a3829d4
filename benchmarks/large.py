"""``python -m benchmarks.large``: how many streams and requests/s one machine measures truthfully.

Loads of growing size against a truth server, each by the whole program with as many workers as it chooses, or each of
``--workers``. A row has how far TTFT is off the server's own, what a token cost, the verdict and the notes. The server
is one thread and can give out too: the last columns are its own TTFT.
"""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path

from benchmarks import machine
from benchmarks.servers import free_port, serve
from benchmarks.timing import STREAM, Scenario, off_ms, requests_per_s, timed_load

LOADS = (
    *(Scenario(name=f"{streams:,} streams x 100 tokens/s", concurrency=streams) for streams in (128, 512, 1024, 2048)),
    *(Scenario(name=f"open loop, {rate:,} requests/s", rate=rate, tokens=8) for rate in (500, 1000, 2000)),
)
HEAD = (
    "load", "workers", "TTFT p50 off", "p99 off", "requests/s", "of the ideal", "a token", "verdict", "notes",
    "server's p50", "p99",
)  # fmt: skip


def measured(load: Scenario, seconds: float, truthserver: Path | None, workers: int | None) -> list[str]:
    """Run one load and return its row."""
    more = ["--metrics-port", str(free_port()), *([] if workers is None else ["--workers", str(workers)])]
    with serve(replace(STREAM, tokens=load.tokens), truthserver) as server, redirect_stderr(StringIO()):
        usage, facts, truth = timed_load(load, seconds, server, *more)
    per_s = requests_per_s(facts)
    return [
        load.name, str(facts["workers"]), *(f"{ms:.2f} ms" for ms in off_ms(facts, truth)), f"{per_s:,.0f}",
        f"{per_s / load.ideal_per_s(STREAM.ttft_s):.1%}", f"{usage.cpu_s / facts['tokens'] * 1e6:.0f} µs",
        facts["verdict"] + (f": {facts['verdict_reason']}" if facts["verdict_reason"] else ""),
        "; ".join(facts["notes"]), f"{truth.ttft_p50_s * 1e3:.1f} ms", f"{truth.ttft_p99_s * 1e3:.1f} ms",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--truthserver", type=Path, help="truth server: a binary or its .c file (default: simulator)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each load (default: 10)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only loads whose name contains this text")
    parser.add_argument("--workers", type=int, nargs="+", help="worker processes (default: as the program chooses)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and loads end with us
    print(f"{machine.describe()}\n\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for load in LOADS:
        for workers in arguments.workers or [None]:
            if arguments.only in load.name:
                row = measured(load, arguments.seconds, arguments.truthserver, workers)
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
