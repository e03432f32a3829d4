"""``python -m benchmarks.comparisons``: how often ``compare`` sees a difference between runs of the very same system.

Runs of simulated systems are written to a database and compared as ``structbench compare`` does: an open loop against
four slots at 80 % of what they can do (M/D/4), requests that have nothing to do with one another, and runs that each
have a speed of their own (standard deviation 5 %), one and several on a side. Prints the table of docs/methods.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from structbench.comparison.comparison import Result, compare, judge_changes
from structbench.comparison.pairing import pair
from structbench.gates.expressions import parse_change
from structbench.results.groups import run_groups
from structbench.store import Reader
from tests.support import queues
from tests.support.comparisons import NS, database

GATE = "ttft_p95>10%"
_CASES, _RIGHT = 40, 0.8


@dataclass(frozen=True, slots=True)
class System:
    """What is simulated: ``times`` returns when each of n requests arrived, its TTFT and how long the rest took."""

    name: str
    times: Callable[[np.random.Generator, int], tuple[queues.Array, queues.Array, queues.Array]]
    run_effect: float = 0.0
    """The standard deviation of the logarithm of a run's own speed."""


def _queued(generator: np.random.Generator, n: int) -> tuple[queues.Array, queues.Array, queues.Array]:
    arrived, waited = queues.queue(generator, n)
    return arrived, 0.1 + waited, np.full(n, 0.9)


def _one_by_one(generator: np.random.Generator, n: int) -> tuple[queues.Array, queues.Array, queues.Array]:
    ttft, rest = 0.1 * queues.independent(generator, n), 0.9 * np.exp(0.1 * generator.standard_normal(n))
    return np.concatenate(([0.0], np.cumsum(ttft + rest)[:-1])), ttft, rest


QUEUE = System("M/D/4, 80 %", _queued)
INDEPENDENT = System("independent", _one_by_one)
RUN_EFFECT = System("independent, each run with a speed of its own", _one_by_one, 0.05)


def rows(system: System, generator: np.random.Generator, n: int) -> list[dict[str, Any]]:
    """Return the stored rows of one run of n requests."""
    at, ttft, rest = system.times(generator, n)
    pace = float(np.exp(system.run_effect * generator.standard_normal()))
    right = generator.random(n) < _RIGHT
    tokens = 8
    found = []
    for index in range(n):
        sent_ns, first_s, rest_s = round((at[index] - at[0]) * NS), ttft[index] * pace, rest[index] * pace
        offsets_s = np.linspace(first_s, first_s + rest_s, tokens)
        e2e_s = float(offsets_s[-1])
        found.append({
            "request_index": index, "segment": 0, "worker": 0, "case_id": f"c{index % _CASES}",
            "repeat": index // _CASES, "due_ns": sent_ns, "sent_ns": sent_ns, "end_ns": sent_ns + round(e2e_s * NS),
            "ttft_s": first_s, "ttft_due_s": first_s, "itl_mean_s": rest_s / (tokens - 1), "e2e_s": e2e_s,
            "tpot_s": rest_s / (tokens - 1), "e2e_due_s": e2e_s, "chunks": tokens, "output_tokens": tokens,
            "chunk_offsets_us": np.round(offsets_s * 1e6).astype(int).tolist(), "json_valid": True,
            "schema_valid": bool(right[index]), "accuracy_score": float(right[index]),
            "outcome": "correct" if right[index] else "wrong_value",
        })  # fmt: skip
    return found


@dataclass(frozen=True, slots=True)
class Shares:
    """Of comparisons of a system with itself: how many say what."""

    different: float
    """Any metric *better* or *worse*."""
    failed: float
    """GATE is not met."""
    decided: float
    """GATE is met or not met."""


def compared(system: System, n: int, pairs: int, side: int = 1, seed: int = 5) -> Shares:
    """Compare ``pairs`` times ``side`` runs of n requests with as many others of the same system."""
    generator = np.random.default_rng((seed, n, side))
    names = [f"r{number}" for number in range(2 * side * pairs)]
    with tempfile.TemporaryDirectory() as folder:
        path = database(Path(folder) / "s.duckdb", **{name: (rows(system, generator, n), {}) for name in names})
        with Reader(path) as reader:
            sides = [names[start : start + side] for start in range(0, len(names), side)]
            found = [_result(reader, a, b) for a, b in zip(sides[::2], sides[1::2], strict=True)]
    words = [{row.word for each in result.comparisons for row in each.rows} for result in found]
    outcomes = [
        gate.outcome for result in found for gate in judge_changes(result.comparisons, (), [parse_change(GATE)])
    ]
    return Shares(
        different=sum(bool(each & {"better", "worse"}) for each in words) / pairs,
        failed=outcomes.count("not met") / pairs, decided=1 - outcomes.count("not decided") / pairs,
    )  # fmt: skip


def _result(reader: Reader, a: list[str], b: list[str]) -> Result:
    return compare((reader, reader), pair(run_groups(reader, a, pool=True), run_groups(reader, b, pool=True)), (), None)


def lines(pairs: int) -> Iterator[str]:
    """Yield the table as Markdown."""
    yield f"| system | requests a run | runs a side | better or worse | `{GATE}` not met | `{GATE}` decided |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    cases = [(QUEUE, 100, 1), (INDEPENDENT, 100, 1), *((RUN_EFFECT, 100, side) for side in (1, 3, 5)),
             (QUEUE, 400, 1), (INDEPENDENT, 400, 1), (QUEUE, 1000, 1)]  # fmt: skip
    for system, n, side in cases:
        found = compared(system, n, pairs, side)
        shown = " | ".join(f"{share * 100:.1f} %" for share in (found.different, found.failed, found.decided))
        yield f"| {system.name} | {n:,} | {side} | {shown} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparisons", description=__doc__)
    parser.add_argument("--pairs", type=int, default=200, help="comparisons for each line (default: 200)")
    for line in lines(parser.parse_args().pairs):
        print(line, flush=True)


if __name__ == "__main__":
    main()
