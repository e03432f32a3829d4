"""Percentiles, rates and their intervals; docs/methods.md explains each. Pure.

Invariant: a percentile is everywhere linear interpolation (type 7), as DuckDB's ``quantile_cont`` computes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from structbench.stats.distributions import binomial_quantile, student_quantile
from structbench.stats.neighbours import Ranks

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

CONFIDENCE = 0.95
"""The level of every interval, two-sided: each end is wrong with a probability of at most 2.5 %."""
MIN_CLUSTERS = 20
"""Requests below which a bootstrap over requests is not trusted (Cameron and Miller, J. Human Resources 50, 2015)."""
DEPENDENT_FACTOR = 20
"""Where neighbours are alike, how many times as many requests a percentile needs before its interval is trusted."""
TOO_ALIKE = "no interval yet: neighbours alike"
MIN_STRETCHES, MAX_STRETCHES = 8, 20
"""10 to 30 stretches are enough for a standard error, and long ones keep the queue's memory inside them."""
VALUES_A_STRETCH = 5
TAIL, TAIL_CLUSTERS = 0.9, 50
"""From this percentile on, a bootstrap of gaps takes more moments: with 20 it covers .79 instead of .95."""
MAX_MOMENTS = 100
RESAMPLES = 999
_GRID = 96
_REACH = 6.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure from ``n`` values (counted in ``unit``) with its interval.

    If n is too small, ``needs`` is the n required, the value is None, and at most one end is known. If the values are
    too alike for an interval, ``why`` says so beside the value, and at most one end is known.
    """

    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    needs: int | None = None
    unit: str = "requests"
    why: str | None = None
    seen: tuple[float, float] | None = None
    """Of latencies that are too alike: the shortest and the longest."""

    @property
    def has_interval(self) -> bool:
        return self.low is not None and self.high is not None


def percentile(values: Iterable[float], p: float) -> float | None:
    """Return the value at position p x (n - 1) of the sorted values, 0 <= p <= 1; None if there are none."""
    if not 0 <= p <= 1:
        raise ValueError(f"p must be from 0 to 1, not {p}")
    ordered = sorted(values)
    if not ordered:
        return None
    place = p * (len(ordered) - 1)
    low = floor(place)
    if low == place:
        return ordered[low]
    return ordered[low] + (ordered[low + 1] - ordered[low]) * (place - low)


def needed(p: float, confidence: float = CONFIDENCE) -> int:
    """Return how many independent values a percentile's two-sided interval needs: ceil(ln(a/2) / ln(max(p, 1 - p))).

    a = 1 - confidence. With fewer, not even the extremes are sure enough to lie on either side: all n values lie below
    the true percentile with chance p^n, which must not exceed a/2 (Conover, Practical Nonparametric Statistics, 3.2).
    p99 needs 368, p95 72, p90 36, the median 6. The extremes (p0, p100) are those of the values themselves: 1.
    """
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(p, 1 - p))) if 0 < p < 1 else 1


def interval_ranks(n: int, p: float, confidence: float = CONFIDENCE) -> tuple[int | None, int | None]:
    """Return the ranks (from 1) of the order statistics that enclose the percentile; None for an end that n lacks.

    The number of values below the true percentile is binomial (n, p), whatever the distribution: low is its a/2
    quantile, high its 1 - a/2 quantile + 1. Exact, conservative by the steps of the ranks.
    """
    if n < 1:
        return None, None
    tail = (1 - confidence) / 2
    low, high = binomial_quantile(tail, n, p), binomial_quantile(1 - tail, n, p) + 1
    return low if low >= 1 else None, high if high <= n else None


def percentile_estimate(values: Array, p: float, confidence: float = CONFIDENCE) -> Estimate:
    """Return the percentile of values in the order they were sent, with the interval that their memory leaves.

    The order statistics are those of as many independent values as these are worth. Where that is too few, or where
    even the means of long blocks of neighbours are alike, only the end on the side of the other values is given.
    """
    return percentile_estimates(values, [p], confidence)[0]


def percentile_estimates(values: Array, ps: Sequence[float], confidence: float = CONFIDENCE) -> list[Estimate]:
    """Return ``percentile_estimate`` of each of several percentiles, in little more time than that of one."""
    if not len(values):
        return [Estimate(0, needs=needed(p)) for p in ps]
    ranks = Ranks(values)
    return [_of_ranks(ranks, p, confidence) for p in ps]


def _of_ranks(of: Ranks, p: float, confidence: float) -> Estimate:
    import numpy as np

    ordered, memory = of.ordered, of.memory(p)
    n, wanted = memory.n, needed(p)
    worth = max(1, memory.effective_n)
    ranks = interval_ranks(worth, p, confidence)
    low = None if ranks[0] is None else float(ordered[max(1, ranks[0] * n // worth) - 1])
    high = None if ranks[1] is None else float(ordered[min(n, -(-ranks[1] * n // worth)) - 1])
    if n < wanted:
        return Estimate(n, None, low, high, needs=wanted)
    least = max(DEPENDENT_FACTOR * wanted, math.ceil(wanted * memory.time)) if memory.dependent else wanted
    value = float(np.quantile(ordered, p))
    if n >= least and not memory.blocks_alike:
        return Estimate(n, value, low, high)
    needs = least if n < least else None
    # Where too few are left for a rank, what every single request was beyond is still known.
    low = float(ordered[0]) if low is None else low
    high = float(ordered[-1]) if high is None else high
    low, high = (low, None) if p >= 0.5 else (None, high)
    return Estimate(n, value, low, high, needs, why=TOO_ALIKE, seen=(float(ordered[0]), float(ordered[-1])))


def wilson(successes: float, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return a proportion with Wilson's interval (JASA 22, 1927), without continuity correction; n = 0 has none.

    (p + z²/2n ± z sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n). ``successes`` may be a sum of scores from 0 to 1: their
    variance is at most p(1 - p), so the interval is then somewhat too wide (Bhatia and Davis, 2000).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n}")
    if n == 0:
        return Estimate(0, needs=1, unit="answers")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = successes / n
    centre, reach = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - reach) / (1 + z * z / n), (centre + reach) / (1 + z * z / n)
    # Rounding must not carry an end past the rate itself, nor beyond all and none.
    return Estimate(n, p, min(max(low, 0.0), p), max(min(high, 1.0), p), unit="answers")


def exact_rate(successes: float, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """Return a proportion with the exact interval of Clopper and Pearson (Biometrika 26, 1934), never too narrow.

    ``successes`` may be a sum of scores from 0 to 1, as in ``wilson``.
    """
    if n == 0:
        return Estimate(0, needs=1, unit="answers")
    return Estimate(n, successes / n, *_clopper_pearson(successes, n, confidence), unit="answers")


def ratio_estimate(
    above: Array, below: Array, n: int, least: float = -math.inf, confidence: float = CONFIDENCE
) -> Estimate:
    """Return a sum divided by another, given both for each stretch of a run, with Student's interval over stretches.

    What ended in each slice of time / its length is a rate; the sum of latencies in a block of requests / their
    number is a mean. The stretches must be long enough to be independent; with fewer than MIN_STRETCHES of them, or
    fewer than MIN_CLUSTERS values ``n``, there is no interval. ``least``: what the ratio cannot be below.
    """
    import numpy as np

    count, total = len(above), float(np.sum(below))
    if total <= 0:
        return Estimate(n, needs=MIN_CLUSTERS)
    value = float(np.sum(above)) / total
    if n < MIN_CLUSTERS or count < MIN_STRETCHES:
        return Estimate(n, value, needs=MIN_CLUSTERS)
    spread = float(((above - value * below) ** 2).sum()) * count / (count - 1)
    reach = student_quantile((1 + confidence) / 2, count - 1) * math.sqrt(spread) / total
    return Estimate(n, value, max(value - reach, least), value + reach)


def such_cases(sums: Array, sizes: Array) -> Estimate:
    """Return a rate as one of *such* cases: each case is asked ``sizes`` times, with the scores' sum ``sums``.

    Answers to one case are alike, so that n answers are worth n / deff: the design effect over cases, with Student's
    for the normal quantile, in Clopper and Pearson's interval (Korn and Graubard, Survey Methodology 24, 1998).
    """
    cases, n = len(sums), float(sizes.sum())
    if cases < MIN_CLUSTERS:
        return Estimate(cases, needs=MIN_CLUSTERS, unit="cases")
    p = float(sums.sum()) / n
    variance = float(((sums - p * sizes) ** 2).sum()) * cases / (cases - 1) / n**2
    worth = float(cases)
    if variance > 0:
        upper = (1 + CONFIDENCE) / 2
        shrunk = (student_quantile(upper, round(n) - 1) / student_quantile(upper, cases - 1)) ** 2
        worth = min(n, p * (1 - p) / variance * shrunk)
    found = _clopper_pearson(p * worth, worth, CONFIDENCE)
    return Estimate(cases, p, min(found[0], p), max(found[1], p), unit="cases")


def _clopper_pearson(right: float, n: float, confidence: float) -> tuple[float, float]:
    from scipy.special import betaincinv

    wrong, tail = n - right, (1 - confidence) / 2
    low = float(betaincinv(right, wrong + 1, tail)) if right > 0 else 0.0
    return low, float(betaincinv(right + 1, wrong, 1 - tail)) if wrong > 0 else 1.0


def mean_estimate(values: Array, least: float = -math.inf, confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean of values in the order they were sent, over blocks of neighbours longer than their memory."""
    import numpy as np

    n = len(values)
    if not n:
        return Estimate(0, needs=MIN_CLUSTERS)
    memory = Ranks(values).memory()
    count = min(MAX_STRETCHES, int(memory.n / max(memory.time, VALUES_A_STRETCH)))
    if memory.blocks_alike or (memory.dependent and count < MIN_STRETCHES):
        return Estimate(n, float(values.mean()), why=TOO_ALIKE)
    count = max(1, min(n, max(count, MIN_STRETCHES)))
    block = np.arange(n) * count // n
    return ratio_estimate(np.bincount(block, values), np.bincount(block).astype(float), n, least, confidence)


def percentile_of_counts(values: Array, counts: Array, p: float) -> float | None:
    """Return the percentile of ascending ``values`` that occur ``counts`` times each."""
    upto = counts.cumsum()
    if not len(upto):
        return None
    place = p * (int(upto[-1]) - 1)
    below, above = (float(values[upto.searchsorted(rank, side="right")]) for rank in (floor(place), math.ceil(place)))
    return below + (above - below) * (place - floor(place))


def gaps_by_moment(starts_s: Array, offsets_s: Sequence[Array]) -> list[Array]:
    """Return the gaps between the chunks of each request, grouped by when they came: a stall hits all streams at once.

    ``starts_s``: when each request was sent; ``offsets_s``: its chunks' instants after that. A group is a stretch of
    the run about as long as a typical answer or longer, so that few answers have gaps in more than two.
    """
    import numpy as np

    if not len(offsets_s):
        return []
    lengths = np.array([each[-1] for each in offsets_s])
    ends = np.concatenate([start + each[1:] for start, each in zip(starts_s, offsets_s, strict=True)])
    gaps = np.concatenate([np.diff(each) for each in offsets_s])
    first, span = float(np.min(starts_s)), float(ends.max() - np.min(starts_s))
    typical = float(np.median(lengths))
    count = min(MAX_MOMENTS, len(offsets_s), int(span / typical) if typical > 0 else len(offsets_s))
    if count < 1 or span <= 0:
        return [gaps]
    place = np.minimum((ends - first) / span * count, count - 1).astype(np.int64)
    order = np.argsort(place, kind="stable")
    return np.split(gaps[order], np.searchsorted(place[order], np.arange(1, count)))


def gap_percentiles(
    moments: Sequence[Array],
    ps: Sequence[float],
    known: Sequence[float | None] | None = None,
    requests: int | None = None,
    confidence: float = CONFIDENCE,
) -> list[Estimate]:
    """Return percentiles of all gaps, with intervals by bootstrap over moments: gaps of one moment are dependent.

    ``moments`` has an array for each stretch of the run, of ``requests`` requests in all (one each if not given);
    ``known`` the percentiles where these are a sample of more, whose interval is then somewhat too wide. Moments are
    drawn with replacement (percentile bootstrap, 999 times, the same draws each time); the interval's ends are gaps
    that were seen. A tail (p90 and beyond) takes TAIL_CLUSTERS moments, other percentiles MIN_CLUSTERS.
    """
    import numpy as np

    moments = [each for each in moments if len(each)]
    count = len(moments)
    n = count if requests is None else requests
    if not count:
        return [Estimate(n, needs=MIN_CLUSTERS) for _ in ps]
    sizes = np.array([len(each) for each in moments])
    values, owner = np.concatenate(moments).astype(float), np.repeat(np.arange(count), sizes)
    ordered = np.sort(values)
    exact = [float(each) for each in np.quantile(ordered, ps)] if known is None else known
    ends = _bootstrap(values, owner, sizes, [_grid(ordered, p, count) for p in ps], ps, confidence)

    def estimate(p: float, value: float | None, low: float, high: float) -> Estimate:
        if value is not None and not 0 < p < 1:  # the extremes are of the gaps that were seen
            return Estimate(n, value)
        wanted = TAIL_CLUSTERS if p >= TAIL else MIN_CLUSTERS
        if value is None or len(values) < needed(p):
            return Estimate(len(values), needs=needed(p), unit="gaps")
        if count < wanted:
            return Estimate(n, None if n < wanted else value, needs=math.ceil(wanted / count * n),
                            why=None if n < wanted else TOO_ALIKE)  # fmt: skip
        return Estimate(n, value, min(low, value), max(high, value))

    return [estimate(p, value, *found) for p, value, found in zip(ps, exact, ends, strict=True)]


def _grid(ordered: Array, p: float, clusters: int) -> Array:
    """Return gaps near the percentile, within _REACH standard errors of wholly dependent gaps."""
    import numpy as np

    reach = _REACH * math.sqrt(p * (1 - p) / clusters)
    places = np.linspace(max(p - reach, 0), min(p + reach, 1), _GRID)
    return np.quantile(ordered, places, method="inverted_cdf")


def _bootstrap(
    values: Array, owner: Array, sizes: Array, grids: Sequence[Array], ps: Sequence[float], confidence: float
) -> list[tuple[float, float]]:
    """Return the intervals' bounds. A redrawn sample is a weight for each request: its percentile is the first grid
    value up to which the weighted count of gaps reaches p, so that no gap is copied or sorted again."""
    import numpy as np

    clusters = len(sizes)
    drawn = np.random.default_rng(0).integers(0, clusters, (RESAMPLES, clusters))
    flat = (drawn + np.arange(RESAMPLES)[:, None] * clusters).ravel()
    weight = np.bincount(flat, minlength=drawn.size).reshape(drawn.shape).astype("f4")
    upto = np.hstack([_cumulative_counts(values, owner, clusters, grid) for grid in grids])
    # One product for all percentiles: a linear algebra library's threads cost more than many small ones are worth.
    counts, total = np.split(weight @ upto, len(ps), axis=1), weight @ sizes
    ends = []
    for p, grid, count in zip(ps, grids, counts, strict=True):
        reached = count >= p * total[:, None]
        found = grid[np.where(reached.any(axis=1), reached.argmax(axis=1), _GRID - 1)]
        low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
        ends.append((float(low), float(high)))
    return ends


def _cumulative_counts(values: Array, owner: Array, clusters: int, grid: Array) -> Array:
    """Return for each request how many of its gaps are at most each grid value."""
    import numpy as np

    steps = len(grid) + 1
    cell = owner * steps + np.searchsorted(grid, values, side="left")
    return np.bincount(cell, minlength=clusters * steps).reshape(clusters, steps).cumsum(axis=1)[:, :-1].astype("f4")
