"""``python -m benchmarks.capacity``: how often ``structbench capacity`` finds the known capacity of simulated servers.

A server answers ``slots`` requests at a time, each in a known time. The rule allows half of what the first request too
many must wait, so that the capacity is the number of slots. Beside the requests that it took: those of a plain
bisection with 100 requests a step.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from loadgen.simulator import PROFILES, Simulator
from structbench.capacity.search import Found, Step, search
from structbench.capacity.steps import Steps
from structbench.options import LoadOptions
from structbench.run.display import Display
from structbench.suites.answer_book import answer_book

A_STEP = 100
SLACK_S = 0.003
"""What client and server add to the time of a request."""


@dataclass(frozen=True, slots=True)
class Server:
    slots: int
    service_s: float

    @property
    def slo(self) -> str:
        return f"e2e_p95<={self.service_s * (1 + 0.5 / self.slots) + SLACK_S:.4f}"


def servers(tries: int, seed: int) -> Iterator[Server]:
    drawn = Random(seed)
    for _ in range(tries):
        yield Server(drawn.randint(2, 8), round(drawn.uniform(0.1, 0.14), 3))


def measure(server: Server, folder: Path) -> Found:
    """Search the capacity of a simulated server as the command does."""
    profile = replace(PROFILES["sim:fast"], parallel=server.slots, service_s=server.service_s)
    with Simulator({"known": profile}, answers=answer_book()) as simulator:
        options = LoadOptions(
            models=["known"], suites=["numbers"], host=simulator.url, db=folder / f"{server.slots}.duckdb",
            metrics_port=0, workers=1, slo=[server.slo, "correct>=90%", "error_rate<=5%"], max_requests=200,
        )  # fmt: skip
        return Steps(options, "concurrency", 300.0, Display(quiet=True)).search(2, 64)


def plain_requests(server: Server) -> int:
    """Return what a bisection with A_STEP requests at each step takes that is never wrong."""

    def exact(level: float) -> Step:
        return Step(level=level, state="met" if level <= server.slots else "not met")

    return A_STEP * len(search(exact, 2, 64, whole=True, in_time=lambda: True).steps)


def inside(found: Found, server: Server) -> bool:
    """Return whether the capacity is at least the load that holds, and below the one that does not."""
    holds, broken = found.holds, found.broken
    return (holds is None or holds.level <= server.slots) and (broken is None or server.slots < broken.level)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--tries", type=int, default=20, help="servers to search (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the servers (default: 1)")
    arguments = parser.parse_args()
    print("| slots | seconds each | holds at | not at | inside | requests | plain bisection |")
    print("| ---: | ---: | ---: | ---: | --- | ---: | ---: |")
    right, asked, plain = 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for number, server in enumerate(servers(arguments.tries, arguments.seed)):
            (own := Path(folder) / str(number)).mkdir()
            found, reference = measure(server, own), plain_requests(server)
            requests = sum(step.requests for step in found.steps)
            right, asked, plain = right + inside(found, server), asked + requests, plain + reference
            bounds = [("–" if step is None else f"{step.level:g}") for step in (found.holds, found.broken)]
            print(f"| {server.slots} | {server.service_s} | {' | '.join(bounds)} | "
                  f"{'yes' if inside(found, server) else 'no'} | {requests} | {reference} |", flush=True)  # fmt: skip
    print(f"\ninside in {right} of {arguments.tries}; {asked / plain:.2f} times the requests of a plain bisection")


if __name__ == "__main__":
    main()
