"""``python -m benchmarks.verdicts``: is a run *valid* only where its TTFT is right?

Runs of one load against a truth server, beside processes that do nothing but use a processor (``--hogs``). Each line
has the verdict and how far p50 and p99 of TTFT are off the server's own.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path

from benchmarks import machine
from benchmarks.servers import serve
from benchmarks.timing import STREAM, Scenario, timed_load

LIMIT = 0.05
"""How far a valid run's figures may be off."""


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Run processes that each use a processor."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def off(stored_s: float, own_s: float) -> float:
    return stored_s / own_s - 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=__doc__)
    parser.add_argument("--truthserver", type=Path, help="truth server: a binary or its .c file (default: simulator)")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--hogs", type=int, default=0, help="processes that use up a processor each (default: 0)")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--ttft", type=float, default=0.06, help="the server's TTFT in seconds (default: 0.06)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and hogs end with us
    scenario = Scenario(name="verdicts", concurrency=arguments.streams, requests=arguments.requests)
    verdicts, wrong = [], 0
    print(machine.describe())
    with serve(replace(STREAM, ttft_s=arguments.ttft), arguments.truthserver) as server, hogs(arguments.hogs):
        for number in range(1, arguments.runs + 1):
            with redirect_stderr(StringIO()):  # it tells every verdict but valid
                usage, facts, truth = timed_load(scenario, 0, server)
            p50, p99 = off(facts["ttft_p50_s"], truth.ttft_p50_s), off(facts["ttft_p99_s"], truth.ttft_p99_s)
            verdicts.append(facts["verdict"])
            wrong += facts["verdict"] == "valid" and max(abs(p50), abs(p99)) > LIMIT
            line = f"{number:3}  {facts['verdict']:8}  p50 {p50:+6.1%}  p99 {p99:+6.1%}"
            print(f"{line}  others used {usage.others_cores:.2f} cores  {facts['verdict_reason'] or ''}", flush=True)
    counts = ", ".join(f"{verdicts.count(word)} {word}" for word in ("valid", "degraded", "invalid"))
    print(f"{counts}; valid though p50 or p99 was off by more than {LIMIT:.0%}: {wrong}")


if __name__ == "__main__":
    main()
