"""SLOs of a cell under way: those that no answer still to come can save, so that the load may end early. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Any

from structbench.gates.expressions import Condition
from structbench.metrics import is_good


@dataclass(slots=True)
class AbortWatch:
    """Watches the SLOs of a running cell; ``broken`` returns those that no answer still to come can save.

    ``planned`` is the maximum number of requests; None: only a duration bounds the cell, so nothing is certain.
    """

    slos: Sequence[Condition]
    planned: int | None
    limits: Mapping[str, float] = field(default_factory=dict)
    seen: int = 0
    """How many requests have ended."""
    _states: list[_SloState] = field(init=False)

    def __post_init__(self) -> None:
        self._states = [_SloState(slo) for slo in self.slos]

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a request that has ended: its row of ``requests``."""
        self.seen += 1
        good = is_good(row, self.limits)
        for state in self._states:
            value = state.slo.metric.adds(row, good)
            if value is not None:
                state.add(value)

    def broken(self, elapsed_s: float | None) -> list[Condition]:
        """Return the SLOs certain to fail, ``elapsed_s`` after the start; none once all requests have ended."""
        remaining = 0 if self.planned is None else self.planned - self.seen
        if remaining <= 0:
            return []
        return [state.slo for state in self._states if state.is_broken(remaining, elapsed_s)]


@dataclass(slots=True)
class _SloState:
    """One SLO and the values so far."""

    slo: Condition
    n: int = 0
    total: float = 0.0
    kept: int = 0
    """How many values are within the limit, for percentiles."""
    worst_kept: float = 0.0
    best_broken: float = float("inf")

    def add(self, value: float) -> None:
        self.n += 1
        self.total += value
        if self.slo.holds(value):
            self.kept += 1
            self.worst_kept = max(self.worst_kept, value)
        else:
            self.best_broken = min(self.best_broken, value)

    def is_broken(self, remaining: int, elapsed_s: float | None) -> bool:
        """Return whether the SLO fails even if every request to come is as good as possible."""
        best = self._best_possible(remaining, elapsed_s)
        return best is not None and not self.slo.holds(best)

    def _best_possible(self, remaining: int, elapsed_s: float | None) -> float | None:
        """Return the best figure still possible; None if nothing bounds it or no value has come."""
        metric, asks_for_more = self.slo.metric, self.slo.op[0] == ">"
        if self.n == 0:
            return None
        if metric.kind == "rate":
            # Tokens to come are unbounded, and a low rate can always come of a long wait.
            if not asks_for_more or not elapsed_s or metric.name == "tokens_per_s":
                return None
            return (self.total + remaining) / elapsed_s
        if metric.kind in ("share", "score"):
            worst = 0 if metric.kind == "share" else -1
            return (self.total + remaining * (1 if asks_for_more else worst)) / (self.n + remaining)
        # How many gaps an answer has is unbounded; and a latency that must be long can still become so.
        if metric.counts == "gap" or asks_for_more:
            return None
        return self.total / (self.n + remaining) if metric.p is None else self._quantile(metric.p, remaining)

    def _quantile(self, p: float, remaining: int) -> float:
        """Return the quantile if all requests to come take no time: zeros below every value so far.

        Of n + R values, R of them zero, place p x (n + R - 1) lies among those within the limit, among those beyond
        it, or between the largest of the former and the smallest of the latter. Fewer to come, or failures (which
        have no latency), make it no smaller.
        """
        place = p * (self.n + remaining - 1)
        low, good = floor(place), remaining + self.kept
        if low >= good:
            return self.best_broken
        if ceil(place) < good:
            return 0.0
        return self.worst_kept + (self.best_broken - self.worst_kept) * (place - low)
