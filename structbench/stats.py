"""Percentiles, rates and their intervals; docs/statistics.md explains each. Pure.

Invariant: a percentile is everywhere linear interpolation (type 7), as DuckDB's ``quantile_cont`` computes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

CONFIDENCE = 0.95
"""The level of every interval, two-sided: each end is wrong with a probability of at most 2.5 %."""
MIN_CLUSTERS = 20
"""Requests below which a bootstrap over requests is not trusted (Cameron and Miller, J. Human Resources 50, 2015)."""
RESAMPLES = 999
_GRID = 96
_REACH = 6.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure from ``n`` values (counted in ``unit``) with its interval; if n is too small, value, low and high are
    None and ``needs`` is the n required."""

    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    needs: int | None = None
    unit: str = "requests"


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
    p99 needs 368, p95 72, p90 36, the median 6.
    """
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(p, 1 - p)))


def interval_ranks(n: int, p: float, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Return the ranks (from 1) of the order statistics that enclose the percentile, or None if n is too small.

    The number of values below the true percentile is binomial (n, p), whatever the distribution: low is its a/2
    quantile, high its 1 - a/2 quantile + 1. Exact, conservative by the steps of the ranks.
    """
    if n < needed(p, confidence):
        return None
    tail = (1 - confidence) / 2
    return _binomial_quantile(tail, n, p), _binomial_quantile(1 - tail, n, p) + 1


def _binomial_quantile(q: float, n: int, p: float) -> int:
    """Return the smallest k with P(B <= k) >= q, as scipy.stats.binom.ppf does, whose import takes a second."""
    from scipy.special import bdtr, bdtrik

    k: int = math.ceil(bdtrik(q, n, p))
    return k - 1 if bdtr(k - 1, n, p) >= q else k


def ranks_around(n: int, p: float) -> tuple[int, int, int, int] | None:
    """Return the ranks (from 1) that estimate the percentile: its two neighbours and the ends of its interval."""
    ends = interval_ranks(n, p)
    if ends is None:
        return None
    place = p * (n - 1)
    return floor(place) + 1, math.ceil(place) + 1, *ends


def percentile_estimate(n: int, p: float, at_ranks: Sequence[float] | None) -> Estimate:
    """Return the percentile of n values, given those at ``ranks_around(n, p)`` (None: too few)."""
    if at_ranks is None:
        return Estimate(n, needs=needed(p))
    below, above, low, high = at_ranks
    place = p * (n - 1)
    return Estimate(n, below + (above - below) * (place - floor(place)), low, high)


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


def rate_per_s(share: Estimate, seconds: float | None) -> Estimate:
    """Return a share as a rate: its bounds times n / seconds, taking the pace of requests as given."""
    if share.value is None or share.low is None or share.high is None or not seconds:
        return Estimate(share.n, needs=share.needs, unit=share.unit)
    factor = share.n / seconds
    return Estimate(share.n, share.value * factor, share.low * factor, share.high * factor, unit=share.unit)


def percentile_of_counts(values: Array, counts: Array, p: float) -> float | None:
    """Return the percentile of ascending ``values`` that occur ``counts`` times each."""
    upto = counts.cumsum()
    if not len(upto):
        return None
    place = p * (int(upto[-1]) - 1)
    below, above = (float(values[upto.searchsorted(rank, side="right")]) for rank in (floor(place), math.ceil(place)))
    return below + (above - below) * (place - floor(place))


def gap_percentiles(
    gaps: Sequence[Array], ps: Sequence[float], known: Sequence[float | None] | None = None
) -> list[Estimate]:
    """Return percentiles of all gaps, with intervals by bootstrap over requests: gaps of one request are dependent.

    ``gaps`` has an array for each request; ``known`` the percentiles where these requests are a sample of more, whose
    interval is then somewhat too wide. Requests are drawn with replacement (percentile bootstrap, 999 times, the
    same draws each time); the interval's ends are gaps that were seen.
    """
    import numpy as np

    gaps = [each for each in gaps if len(each)]
    if len(gaps) < MIN_CLUSTERS:
        return [Estimate(len(gaps), needs=MIN_CLUSTERS) for _ in ps]
    sizes = np.array([len(each) for each in gaps])
    values, owner = np.concatenate(gaps).astype(float), np.repeat(np.arange(len(gaps)), sizes)
    ordered = np.sort(values)
    exact = [float(each) for each in np.quantile(ordered, ps)] if known is None else known
    ends = _bootstrap(values, owner, sizes, [_grid(ordered, p, len(gaps)) for p in ps], ps)
    return [
        Estimate(len(values), needs=needed(p), unit="gaps")
        if value is None or len(values) < needed(p)
        else Estimate(len(gaps), value, min(low, value), max(high, value))
        for p, value, (low, high) in zip(ps, exact, ends, strict=True)
    ]


def _grid(ordered: Array, p: float, clusters: int) -> Array:
    """Return gaps near the percentile, within _REACH standard errors of wholly dependent gaps."""
    import numpy as np

    reach = _REACH * math.sqrt(p * (1 - p) / clusters)
    places = np.linspace(max(p - reach, 0), min(p + reach, 1), _GRID)
    return np.quantile(ordered, places, method="inverted_cdf")


def _bootstrap(
    values: Array, owner: Array, sizes: Array, grids: Sequence[Array], ps: Sequence[float]
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
        low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        ends.append((float(low), float(high)))
    return ends


def _cumulative_counts(values: Array, owner: Array, clusters: int, grid: Array) -> Array:
    """Return for each request how many of its gaps are at most each grid value."""
    import numpy as np

    steps = len(grid) + 1
    cell = owner * steps + np.searchsorted(grid, values, side="left")
    return np.bincount(cell, minlength=clusters * steps).reshape(clusters, steps).cumsum(axis=1)[:, :-1].astype("f4")
