"""``python -m benchmarks.capacity``: how often ``structbench capacity`` finds the known capacity of simulated servers.

A server answers ``slots`` requests at a time, each in a known time. The rule allows half of what the first request too
many must wait, so that the capacity is the number of slots. Beside the requests that it took: those of a plain
bisection with 100 requests a step. With ``--played`` the queue is computed, in no time: the search and its looks alone.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from loadgen.simulator import PROFILES, Simulator
from structbench.capacity.search import Found, Step, search
from structbench.capacity.steps import Steps
from structbench.gates.expressions import parse_slo
from structbench.gates.settled import decide, looks
from structbench.options import LoadOptions
from structbench.run.display import Display
from structbench.run.settling import OPENINGS
from structbench.stats import Estimate, percentile_estimate
from structbench.store import storing
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
            models=["known"], suites=["numbers"], host=[simulator.url], db=folder / f"{server.slots}.duckdb",
            metrics_port=0, workers=1, slo=[server.slo, "correct>=90%", "error_rate<=5%"], max_requests=200,
        )  # fmt: skip
        with storing(options.db) as store:
            return Steps(options, "concurrency", 300.0, Display(quiet=True), lambda: store).search(2, 64)


def _p95(took: np.ndarray[Any, Any], confidence: float) -> Mapping[str, Estimate]:
    return {"e2e_p95": percentile_estimate(took, 0.95, confidence)}


def play(server: Server, seed: int, most: int = 200) -> Found:
    """Search the capacity of a computed queue by the same looks and the same search."""
    generator, rule = np.random.default_rng(seed), [parse_slo(server.slo)]

    def measure(level: float) -> Step:
        streams = int(level)
        took = np.array(queue(server, streams, most + streams, generator))
        for at in looks():
            n = min(max(at, OPENINGS * streams if streams > 1 else 0), most)
            steady = took[streams if streams > 1 else 0 : n]
            decision = decide(rule, n, partial(_p95, steady), closed=True)
            if decision.state != "not decided" or n == most:
                break
        return Step(level=level, state=decision.state, requests=n + streams - 1)  # those in flight end too

    return search(measure, 2, 64, whole=True, in_time=lambda: True)


def queue(server: Server, streams: int, n: int, generator: np.random.Generator) -> list[float]:
    """Return how long each of n requests takes in a closed loop: its wait for a slot, and its service."""
    free = [0.0] * server.slots
    ready = sorted(generator.random(streams) * 0.005 * streams)
    took = []
    for slack in generator.random(n):
        sent, slot = heapq.heappop(ready), heapq.heappop(free)
        end = max(sent, slot) + server.service_s * (1 + 0.02 * slack)
        heapq.heappush(free, end)
        heapq.heappush(ready, end + 0.001)
        took.append(end - sent)
    return took


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
    parser.add_argument("--played", action="store_true", help="compute the queue instead of asking a server")
    arguments = parser.parse_args()
    print("| slots | seconds each | holds at | not at | inside | requests | plain bisection |")
    print("| ---: | ---: | ---: | ---: | --- | ---: | ---: |")
    right, asked, plain = 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for number, server in enumerate(servers(arguments.tries, arguments.seed)):
            (own := Path(folder) / str(number)).mkdir()
            found = play(server, number) if arguments.played else measure(server, own)
            reference = plain_requests(server)
            requests = sum(step.requests for step in found.steps)
            right, asked, plain = right + inside(found, server), asked + requests, plain + reference
            bounds = [("–" if step is None else f"{step.level:g}") for step in (found.holds, found.broken)]
            print(f"| {server.slots} | {server.service_s} | {' | '.join(bounds)} | "
                  f"{'yes' if inside(found, server) else 'no'} | {requests} | {reference} |", flush=True)  # fmt: skip
    print(f"\ninside in {right} of {arguments.tries}; {asked / plain:.2f} times the requests of a plain bisection")


if __name__ == "__main__":
    main()
