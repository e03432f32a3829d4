"""The difference of a figure between two runs, with interval and p-value. Pure; docs/methods.md has the sources.

Invariant: the resampled unit is a stretch of the load (a block of neighbouring requests, a slice of time) or a case,
never a single request out of its queue; the same data give the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import expm1, hypot, log, sqrt
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from structbench.stats import CONFIDENCE, MIN_CLUSTERS, needed, percentile_of_counts, wilson

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RESAMPLES = 1000
_MAX_LOG = 500.0
"""The largest logarithm that is exponentiated, below overflow."""
PERMUTATIONS = 9999
NO_CASE_DIFFERS = "no case differs"
MIN_RUNS = 3
"""Runs on each side from which on the run is the unit."""
MAX_DISTINCT = 4096
"""The maximum number of distinct values for resampling; more are binned."""


@dataclass(frozen=True, slots=True)
class Difference:
    """``b - a``, its 95 % interval, and the p-value: how likely so large a difference is by chance."""

    a: float
    b: float
    low: float
    high: float
    p_value: float
    method: str

    @property
    def value(self) -> float:
        return self.b - self.a


class Sample(Protocol):
    """A figure of one run that can be recomputed from resampled blocks."""

    @property
    def value(self) -> float: ...
    @property
    def blocks(self) -> int: ...
    def estimates(self, weights: Floats) -> Floats:
        """Return the figure for each row of weights: how often each block is drawn."""


def blocks_of(n: int, blocks: int) -> Integers:
    """Return the block of each of n neighbouring requests."""
    return np.arange(n, dtype=np.int64) * blocks // max(n, 1)


def min_n(p: float | None) -> int:
    """Return the fewest values for an interval of the quantile p (0 < p < 1), or of a mean or rate (None)."""
    return MIN_CLUSTERS if p is None else max(MIN_CLUSTERS, needed(p))


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of all values, type 7."""

    value: float
    p: float
    places: Floats
    """Distinct values, ascending."""
    counts: Floats
    """How often each block has each value."""

    @property
    def blocks(self) -> int:
        return len(self.counts)

    def estimates(self, weights: Floats) -> Floats:
        upto = np.cumsum(weights @ self.counts, axis=1)
        place = self.p * (upto[:, -1:] - 1)
        low = np.minimum((upto <= np.floor(place)).sum(axis=1), len(self.places) - 1)
        high = np.minimum((upto <= np.ceil(place)).sum(axis=1), len(self.places) - 1)
        part = (place - np.floor(place))[:, 0]
        found: Floats = self.places[low] + (self.places[high] - self.places[low]) * part
        return np.where(upto[:, -1] > 0, found, np.nan)


def quantile(values: Floats, times: Floats, blocks: Integers, block_total: int, p: float) -> Quantile:
    """Return the quantile of ``values``, each occurring ``times`` times in its block."""
    places, place_of = np.unique(values, return_inverse=True)
    totals = np.bincount(place_of, weights=times, minlength=len(places))
    exact = percentile_of_counts(places, totals, p)
    if exact is None:
        raise ValueError("a quantile of nothing")
    if len(places) > MAX_DISTINCT:
        bin_of = ((totals.cumsum() - 1) * MAX_DISTINCT // totals.sum()).astype(np.int64)
        kept, bin_of = np.unique(bin_of, return_inverse=True)
        first = np.searchsorted(bin_of, np.arange(len(kept)))
        places, place_of = places[first], bin_of[place_of]
    counts = np.zeros((block_total, len(places)))
    np.add.at(counts, (blocks, place_of), times)
    return Quantile(exact, p, places, counts)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A sum divided by another: requests by time, failures by requests, seconds by gaps."""

    above: Floats
    below: Floats
    """The sums of each block."""

    @property
    def value(self) -> float:
        return float(self.above.sum() / self.below.sum())

    @property
    def blocks(self) -> int:
        return len(self.above)

    def estimates(self, weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = (weights @ self.above) / (weights @ self.below)
        return found


def difference(a: Sample, b: Sample, *, paired: bool, relative: bool) -> Difference:
    """Return ``b - a`` with a bootstrap over blocks; ``paired``: block i of both is the same requests, drawn together.

    The standard error is that of the resampled differences, times sqrt(K / (K - 1)) for K blocks; the interval and
    the p-value are Student's with K - 1 degrees of freedom, unpaired with Welch's. ``relative``: all this on the scale
    of logarithms, so that the interval is one of the ratio b / a (given as differences, times a's figure); not so
    where some resample is 0. In no case does it go below -100 % of a's figure; that of a
    share (not relative) is from -1 to 1, since the true share of a is no more certain than b's.
    """
    from scipy import stats

    of_a, of_b = a.estimates(_weights(a.blocks, 0)), b.estimates(_weights(b.blocks, 0 if paired else 1))
    ratio = relative and min(a.value, b.value, np.nanmin(of_a), np.nanmin(of_b)) > 0
    if ratio:
        of_a, of_b = np.log(of_a), np.log(of_b)
    change = log(b.value / a.value) if ratio else b.value - a.value
    if paired:
        variance, freedom = _variance(of_b - of_a, a.blocks), float(a.blocks - 1)
    else:
        parts = [_variance(of_a, a.blocks), _variance(of_b, b.blocks)]
        variance = sum(parts)
        below = sum(part**2 / (n - 1) for part, n in zip(parts, (a.blocks, b.blocks), strict=True))
        freedom = variance**2 / below if below else 1.0
    error = sqrt(variance)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    ends = [change - reach, change + reach]
    low, high = [a.value * expm1(min(end, _MAX_LOG)) for end in ends] if ratio else ends
    if not relative:
        low, high = max(low, -1.0), min(high, 1.0)
    elif a.value > 0:
        low = max(low, -a.value)
    p_value = 2 * float(stats.t.sf(abs(change) / error, freedom)) if error else float(change == 0)
    method = f"{'paired ' if paired else ''}block bootstrap"
    return Difference(a.value, b.value, low, high, p_value, method)


def difference_of_runs(a: float, b: float, of_a: Floats, of_b: Floats, *, relative: bool) -> Difference:
    """Return ``b - a``, figures of all requests, with the interval and p-value of Welch's t over the runs' own figures.

    ``relative``: on the scale of logarithms, where all are above 0: the interval is that of the ratio of the runs'
    geometric means, times a's figure (Kalibera and Jones, ISMM 2013).
    """
    from scipy import stats

    ratio = relative and min(a, b, of_a.min(), of_b.min()) > 0
    ours, theirs = (np.log(each) if ratio else each for each in (of_a, of_b))
    change = float(theirs.mean() - ours.mean())
    parts = [float(each.var(ddof=1)) / len(each) for each in (ours, theirs)]
    variance = sum(parts)
    below = sum(part**2 / (len(each) - 1) for part, each in zip(parts, (ours, theirs), strict=True))
    freedom = variance**2 / below if below else 1.0
    error = sqrt(variance)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    low, high = (a * expm1(min(end, _MAX_LOG)) if ratio else end for end in (change - reach, change + reach))
    p_value = 2 * float(stats.t.sf(abs(change) / error, freedom)) if error else float(change == 0)
    return Difference(a, b, min(low, b - a), max(high, b - a), p_value, "Welch's t over runs")


def without_variation(found: Difference, n_a: int, n_b: int) -> Difference:
    """Return the difference of shares that are constant over blocks (no request failed), by Newcombe's method 10.

    From Wilson's intervals (l, u) of each: d - sqrt((b - l_b)^2 + (u_a - a)^2) … d + sqrt((u_b - b)^2 + (a - l_a)^2).
    """
    reach = []
    for first, n_first, second, n_second in ((found.b, n_b, found.a, n_a), (found.a, n_a, found.b, n_b)):
        low, high = wilson(first * n_first, n_first).low, wilson(second * n_second, n_second).high
        if low is None or high is None:
            raise ValueError("a share of nothing")
        reach.append(hypot(first - low, high - second))
    return replace(found, low=max(found.value - reach[0], -1), high=min(found.value + reach[1], 1), method="Newcombe")


@lru_cache(maxsize=64)
def _weights(blocks: int, stream: int) -> Floats:
    """Return how often each block is drawn, one row per resample; fixed by seed, independent across streams."""
    generator = np.random.default_rng((stream, blocks))
    return generator.multinomial(blocks, np.full(blocks, 1 / blocks), size=RESAMPLES).astype(np.float64)


def _variance(resampled: Floats, blocks: int) -> float:
    return float(np.nanvar(resampled, ddof=1)) * blocks / (blocks - 1)


def paired_by_case(a: Floats, b: Floats, cases_a: NDArray[Any], cases_b: NDArray[Any]) -> Difference:
    """Return ``b - a`` for scores of the same questions; the unit is the case, however often each side asked it.

    A case has on each side the mean of its answers there, and the weight of all its answers. The p-value: McNemar's
    exact test where each case differs by the same amount or not at all (one right or wrong answer a case), else a
    permutation test that swaps A and B case by case. The interval: normal, over cases, with two made-up cases added,
    one for each side (Bonett and Price's, where each case was asked once).
    """
    names, case_of = np.unique(np.concatenate((cases_a, cases_b)), return_inverse=True)
    of_a, of_b = case_of[: len(a)], case_of[len(a) :]
    n_a, n_b = (np.bincount(of, minlength=len(names)) for of in (of_a, of_b))
    mean_a, mean_b = np.bincount(of_a, weights=a) / n_a, np.bincount(of_b, weights=b) / n_b
    sizes: Floats = (n_a + n_b) / 2
    sums: Floats = sizes * (mean_b - mean_a)
    low, high = interval_by_case(sums, sizes)
    p_value, method = _swapped(sums[np.abs(sums) > 1e-12])
    of_all_a, of_all_b = (float((sizes * mean).sum() / sizes.sum()) for mean in (mean_a, mean_b))
    return Difference(of_all_a, of_all_b, low, high, p_value, method)


def interval_by_case(sums: Floats, sizes: Floats) -> tuple[float, float]:
    """Return the 95 % interval of a mean of differences from -1 to 1, given the sum and count of each case."""
    typical = float(sizes.mean())
    all_sums, all_sizes = np.append(sums, (typical, -typical)), np.append(sizes, (typical, typical))
    middle = float(all_sums.sum() / all_sizes.sum())
    error = sqrt(float(((all_sums - middle * all_sizes) ** 2).sum())) / float(all_sizes.sum())
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error
    return max(middle - reach, -1.0), min(middle + reach, 1.0)


def _swapped(sums: NDArray[Any]) -> tuple[float, str]:
    """Return the p-value of the sum under random signs, and the method."""
    from scipy import stats

    if not len(sums):
        return 1.0, NO_CASE_DIFFERS
    if np.ptp(np.abs(sums)) < 1e-12:
        return float(stats.binomtest(int((sums > 0).sum()), len(sums)).pvalue), "McNemar"
    found = stats.permutation_test(
        (sums,), lambda drawn, axis: drawn.sum(axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=PERMUTATIONS, batch=max(1, 2_000_000 // len(sums)), rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(found.pvalue), "permutation by case"


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number by Holm's step-down method."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = so_far
    return adjusted
