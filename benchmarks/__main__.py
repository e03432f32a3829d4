"""``python -m benchmarks``: run all benchmarks, or those whose name contains ``--only``, and print one table."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import apis, machine, peers, results, scoring, store, telemetry, timing, tls
from benchmarks.table import Figure, lines, markdown


def benchmarks(arguments: argparse.Namespace) -> dict[str, Callable[[], list[Figure]]]:
    """Return every benchmark by name."""
    found: dict[str, Callable[[], list[Figure]]] = {}
    for scenario in timing.SCENARIOS:
        found[scenario.name] = partial(timing.measure, scenario, arguments.seconds, arguments.truthserver)
    found[telemetry.NAME] = partial(telemetry.measure, arguments.seconds, arguments.truthserver)
    found[apis.NAME] = partial(apis.measure, arguments.seconds, arguments.truthserver)
    found[tls.NAME] = partial(tls.measure, arguments.seconds)
    found |= {store.NAME: store.measure, store.FSYNC: store.measure_fsync}
    found |= {scoring.NAME: scoring.measure, results.NAME: results.measure}
    return {**found, scoring.LOAD: partial(scoring.measure_load, arguments.seconds)}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--truthserver", type=Path, help="truth server: a binary or its .c file (default: the simulator)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each load in seconds (default: 60)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each benchmark, of which the median counts (default: 3)"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="run only benchmarks whose name contains this text")
    parser.add_argument(
        "--peers", action="store_true", help="AIPerf and GuideLLM beside structbench, instead: they are installed first"
    )
    return parser


def undisturbed(run: Callable[[], list[Figure]], tries: int = 4) -> list[Figure]:
    """Return the first run that other processes did not disturb, or else the last."""
    for _ in range(tries - 1):
        figures = run()
        others = [figure.value for figure in figures if figure.name == timing.OTHERS]
        if not others or max(others) <= machine.QUIET_CORES:
            return figures
        print(f"other processes used {max(others):.2f} cores: trying again", file=sys.stderr, flush=True)
    return run()


def main() -> None:
    arguments = parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and loads end with us
    if arguments.peers:
        peers.compare(arguments.truthserver)
        return
    chosen = {name: run for name, run in benchmarks(arguments).items() if arguments.only in name}
    if not chosen:
        sys.exit(f"no benchmark's name contains {arguments.only!r}: use {', '.join(benchmarks(arguments))}")
    repeats: list[list[Figure]] = []
    for repeat in range(arguments.repeats):
        for name, run in chosen.items():
            print(f"{repeat + 1} of {arguments.repeats}: {name}", file=sys.stderr, flush=True)
            repeats.append(undisturbed(run))
    server = "the simulator" if arguments.truthserver is None else "the truth server"
    print(f"{machine.describe()}\nagainst {server}, {arguments.seconds:g} s each, median of {arguments.repeats}\n")
    print(markdown(lines(repeats)))


if __name__ == "__main__":
    main()
