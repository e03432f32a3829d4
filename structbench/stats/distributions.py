"""Quantiles of two distributions, as scipy has them, whose import takes 0.4 s at the end of every load. Pure."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_LARGE = 100
"""Degrees of freedom from which on Student's quantile is a short sum: five of its terms are right to 1e-9."""
_FAR = 40.0
"""Standard deviations beyond which a binomial distribution is nothing."""
_SAME = 1e-12
"""Probabilities that differ by less are the same."""


@lru_cache(4096)
def binomial_quantile(q: float, n: int, p: float) -> int:
    """Return the smallest k with P(B <= k) >= q for B binomial (n, p)."""
    import numpy as np

    if p in (0, 1):
        return round(p * n)
    reach = _FAR * math.sqrt(n * p * (1 - p)) + _FAR
    first, last = max(0, math.floor(n * p - reach)), min(n, math.ceil(n * p + reach))
    k = np.arange(first, last)
    steps = np.log((n - k) / (k + 1)) + math.log(p) - math.log1p(-p)  # from each P(B = k) to the next, as logarithms
    chances = np.concatenate([[0.0], np.cumsum(steps)])
    chances = np.exp(chances - chances.max())
    below = np.cumsum(chances) / chances.sum()
    return first + min(int(np.searchsorted(below, q * (1 - _SAME))), last - first)


@lru_cache(4096)
def student_quantile(q: float, df: int) -> float:
    """Return the value below which Student's t with ``df`` degrees of freedom is with chance q >= 0.5."""
    z = NormalDist().inv_cdf(q)
    if df > _LARGE:  # Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5
        return z + sum((
            (z**3 + z) / 4 / df,
            (5 * z**5 + 16 * z**3 + 3 * z) / 96 / df**2,
            (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / df**3,
            (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160 / df**4,
        ))  # fmt: skip
    low, high = 0.0, math.pi / 2
    while (angle := (low + high) / 2) not in (low, high):
        low, high = (angle, high) if _within(angle, df) < 2 * q - 1 else (low, angle)
    return math.sqrt(df) * math.tan(angle)


def _within(angle: float, df: int) -> float:
    """Return the chance that |t| < sqrt(df) tan(angle), for whole degrees of freedom (the same, 26.7.3 and 26.7.4)."""
    cosine, total, term = math.cos(angle), 0.0, math.sin(angle)
    if df % 2:
        term *= cosine
    for i in range(df % 2, df - 1, 2):
        total += term
        term *= cosine * cosine * (i + 1) / (i + 2)
    return (angle + total) * 2 / math.pi if df % 2 else total
