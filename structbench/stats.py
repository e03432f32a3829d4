"""Percentiles. Pure.

Invariant: one definition everywhere, linear interpolation (type 7), the same as DuckDB's ``quantile_cont``.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import floor


def percentile(values: Iterable[float], p: float) -> float | None:
    """The value at place p x (n - 1) of the sorted values, 0 <= p <= 1; None when there are none."""
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
