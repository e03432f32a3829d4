"""``python -m benchmarks.intervals``: how often intervals cover the true figures of simulated systems.

Independent requests, AR(.5), M/D/4 at 80, 90 and 95 % load: what an open loop against four slots looks like. Prints the
table of docs/methods.md; ``--runs`` is the number of runs for each line.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np

from structbench.stats import gap_percentiles, gaps_by_moment, percentile_estimate, ratio_estimate, such_cases
from tests.support import queues

Simulate = Callable[[np.random.Generator, int], queues.Array]
SYSTEMS: dict[str, Simulate] = {
    "independent": queues.independent,
    "AR(.5)": queues.autoregressive,
    "M/D/4, 80 %": queues.waits,
    "M/D/4, 90 %": lambda generator, n: queues.waits(generator, n, 0.9),
    "M/D/4, 95 %": lambda generator, n: queues.waits(generator, n, 0.95),
}
PERCENTILES = (0.5, 0.9, 0.95)


def coverage(simulate: Simulate, n: int, runs: int, seed: int = 1) -> dict[float, tuple[float, float]]:
    """Return for each percentile the share of runs with an interval, and of those the share that covers the truth."""
    generator = np.random.default_rng((seed, n))
    many = np.concatenate([simulate(generator, 200_000) for _ in range(3)])
    found = {}
    samples = [simulate(generator, n) for _ in range(runs)]
    for p in PERCENTILES:
        truth = float(np.quantile(many, p))
        shown = [each for values in samples if (each := percentile_estimate(values, p)).has_interval]
        covers = [(each.low or 0) - 1e-9 <= truth <= (each.high or 0) + 1e-9 for each in shown]
        found[p] = len(shown) / runs, float(np.mean(covers)) if covers else float("nan")
    return found


def rate_coverage(runs: int, poisson: bool, seed: int = 2) -> float:
    """Return how often the interval of correct answers/s covers the truth: about 100 requests, 80 % right."""
    generator, hits = np.random.default_rng(seed), 0
    for _ in range(runs):
        ends = np.cumsum(generator.exponential(0.25, 100)) if poisson else queues.closed_loop(generator, 100)
        right, length = generator.random(len(ends)) < 0.8, float(ends.max())
        place = np.minimum(ends / length * 20, 19).astype(int)
        found = ratio_estimate(np.bincount(place, right, 20), np.full(20, length / 20), 100, 0.0)
        truth = 0.8 * (4.0 if poisson else 4 / np.exp(0.125))
        hits += (found.low or 0) <= truth <= (found.high or 0)
    return hits / runs


def case_coverage(runs: int, seed: int = 3) -> float:
    """Return how often a rate of such cases covers the truth: 30 cases, each asked 10 times, two of three right."""
    generator = np.random.default_rng(seed)
    found = [such_cases(generator.binomial(10, generator.beta(1, 0.5, 30)), np.full(30, 10.0)) for _ in range(runs)]
    return float(np.mean([(each.low or 0) <= 2 / 3 <= (each.high or 0) for each in found]))


def gap_coverage(n: int, runs: int, seed: int = 4) -> dict[float, tuple[float, float]]:
    """Return the same as ``coverage`` of gaps whose stalls are shared by neighbours."""
    generator = np.random.default_rng((seed, n))
    many = np.concatenate([np.diff(each) for each in queues.stalling_streams(generator, 8000)[1]])
    found: dict[float, list[bool]] = {p: [] for p in (*PERCENTILES, 0.99)}
    for _ in range(runs):
        moments = gaps_by_moment(*queues.stalling_streams(generator, n))
        for (p, covers), each in zip(found.items(), gap_percentiles(moments, [*found], requests=n), strict=True):
            if each.has_interval:
                covers.append((each.low or 0) <= np.quantile(many, p) <= (each.high or 0))
    return {p: (len(covers) / runs, float(np.mean(covers)) if covers else np.nan) for p, covers in found.items()}


def lines(runs: int, independent: int) -> Iterator[str]:
    """Yield the table as Markdown: coverage, and the share of runs that show an interval (–: under 3 %)."""

    def cell(shown: float, covers: float) -> str:
        return f".{covers * 100:02.0f} ({shown * 100:.0f} %)".replace(".100", "1.00") if shown >= 0.03 else "–"

    yield "| system | n | p50 | p90 | p95 |"
    yield "| --- | ---: | --- | --- | --- |"
    for name, simulate in SYSTEMS.items():
        for n in (100, 400, 1000, 4000):
            found = coverage(simulate, n, independent if simulate is queues.independent else runs)
            yield f"| {name} | {n:,} | {' | '.join(cell(*each) for each in found.values())} |"
    for n in (100, 300):
        cells = [cell(*each) for each in gap_coverage(n, runs // 4).values()]
        yield f"| ITL, shared stalls | {n} | {' | '.join(cells[:3])} |"
    yield f"\ncorrect/s: closed loop {rate_coverage(runs * 4, False):.3f}, Poisson {rate_coverage(runs * 4, True):.3f}"
    yield f"a rate of such cases: {case_coverage(runs * 4):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intervals", description=__doc__)
    parser.add_argument("--runs", type=int, default=400, help="runs for each line (default: 400)")
    parser.add_argument("--independent", type=int, default=2000, help="the same where requests are (default: 2000)")
    arguments = parser.parse_args()
    for line in lines(arguments.runs, arguments.independent):
        print(line, flush=True)


if __name__ == "__main__":
    main()
