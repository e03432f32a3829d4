"""A histogram as Prometheus shows it, and what can be read from it: window and percentiles. Pure.

Invariant: what is read lies in the bucket in which the exact value lies; without observations it is None.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from math import inf, isinf


@dataclass(frozen=True, slots=True)
class Buckets:
    """Upper bounds in rising order, the last one infinite, and how many observations are at or below each."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.bounds) != len(self.counts) or not self.bounds or self.bounds[-1] != inf:
            raise ValueError("a count for each bound, and the last bound infinite")

    @property
    def count(self) -> float:
        return self.counts[-1]

    def since(self, earlier: Buckets | None) -> Buckets:
        """What came after the earlier reading; all, when the process behind it is another one by now."""
        if earlier is None or earlier.bounds != self.bounds or earlier.count > self.count:
            return self
        counts = tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True))
        return Buckets(self.bounds, counts)

    def quantile(self, q: float) -> float | None:
        """As ``histogram_quantile`` of Prometheus: the place q x count, spread evenly over its bucket.

        The first bucket begins at 0; a place above the last finite bound is told as that bound. q = 0 is where the
        bucket of the smallest observation begins.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q must be from 0 to 1, not {q}")
        if not self.count:
            return None
        rank = q * self.count
        i = bisect_left(self.counts, rank) if rank else bisect_right(self.counts, 0.0)
        before = self.counts[i - 1] if i else 0.0
        low = self.bounds[i - 1] if i else min(0.0, self.bounds[0])
        if isinf(self.bounds[i]):
            return low
        return low + (self.bounds[i] - low) * (rank - before) / (self.counts[i] - before)
