"""``python -m benchmarks.buckets``: how far percentiles read from live buckets are off those of the values themselves.

What Prometheus' ``histogram_quantile`` and ``structbench watch`` make of the buckets of TTFT and e2e (10 % wide from
1 ms to 100 s) and of gaps, for latencies that lie close together, spread or queue, around 200 typical sizes each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from loadgen.telemetry.histogram import buckets_of, explicit
from loadgen.telemetry.instruments import GAP_BUCKETS, LATENCY_BUCKETS
from tests.support import queues

PERCENTILES = (0.5, 0.95, 0.99)
SHAPES: dict[str, Callable[[np.random.Generator], queues.Array]] = {
    "within 0.5 %": lambda generator: np.exp(0.005 * generator.standard_normal(1000)),
    "within 5 %": lambda generator: np.exp(0.05 * generator.standard_normal(1000)),
    "log-normal, 50 %": lambda generator: queues.independent(generator, 1000),
    "M/D/4, 80 %": lambda generator: queues.waits(generator, 1000),
}
KINDS = {"TTFT, e2e": (LATENCY_BUCKETS, 0.02, 10.0), "ITL": (GAP_BUCKETS, 0.01, 1.0)}
"""Name -> buckets, and the typical sizes in seconds between which they are tried."""


def errors(bounds: Sequence[float], values: queues.Array) -> list[float]:
    """Return by what share each of PERCENTILES that is read from the buckets is off."""
    histogram = explicit(bounds)
    histogram.add(values)
    buckets = buckets_of(histogram, bounds)
    exact = np.quantile(values, PERCENTILES)
    return [abs((buckets.quantile(p) or 0.0) / own - 1) for p, own in zip(PERCENTILES, exact, strict=True)]


def found(kind: str, shape: str, sizes: int, seed: int = 6) -> queues.Array:
    """Return the errors around each size (rows) of each percentile (columns)."""
    bounds, least, most = KINDS[kind]
    generator = np.random.default_rng(seed)
    scales = np.geomspace(least, most, sizes)
    return np.array([errors(bounds, scale * SHAPES[shape](generator)) for scale in scales])


def lines(sizes: int) -> Iterator[str]:
    """Yield the table as Markdown: median, and in parentheses the worst."""
    yield "| latencies | metric | p50 | p95 | p99 |"
    yield "| --- | --- | --- | --- | --- |"
    for kind in KINDS:
        for shape in SHAPES:
            own = found(kind, shape, sizes)
            cells = [f"{np.median(each) * 100:.1f} % ({each.max() * 100:.1f} %)" for each in own.T]
            yield f"| {shape} | {kind} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.buckets", description=__doc__)
    parser.add_argument("--sizes", type=int, default=200, help="typical sizes for each line (default: 200)")
    for line in lines(parser.parse_args().sizes):
        print(line, flush=True)


if __name__ == "__main__":
    main()
