"""SLOs of a cell under way: those that no answer still to come can save, so that the load may end early. Pure.

A figure that misses its limit is not met, or not decided, by the rule of ``gates.slo``: whatever is given up here ends
the load as the whole run would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Any

from structbench.gates.expressions import Condition
from structbench.metrics import is_good
from structbench.steadiness import asked_ns, opening_end_ns


@dataclass(slots=True)
class AbortWatch:
    """Watches the SLOs of a running cell; ``broken`` returns those that no answer still to come can save.

    ``planned`` is the maximum number of requests; None: only a duration bounds the cell, so nothing is certain.
    Latencies and rates are of the steady part of a run: what was sent in its opening may not count.
    """

    slos: Sequence[Condition]
    planned: int | None
    limits: Mapping[str, float] = field(default_factory=dict)
    seen: int = 0
    """How many requests have ended."""
    concurrency: int | None = None
    opening: frozenset[int] = frozenset()
    """The first requests, which tell when the opening is over (``structbench.steadiness``)."""
    _first: list[Mapping[str, Any]] = field(default_factory=list)
    _held: list[Mapping[str, Any]] = field(default_factory=list)
    """Requests that ended before it was known whether the opening was over when they were sent."""
    _over_ns: int | None = None
    _opening_s: float = 0.0
    _steady: int = 0
    """How many of the requests that have ended certainly count for latencies."""
    _states: list[_SloState] = field(init=False)

    def __post_init__(self) -> None:
        self._states = [_SloState(slo) for slo in self.slos]

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a request that has ended: its row of ``requests``."""
        self.seen += 1
        self._add_to(row, steady_only=False)
        if row.get("steady") or not self.opening:
            self._add_steady(row)
        elif self._over_ns is None:
            self._hold(row)
        elif (asked_ns(row) or 0) > self._over_ns:
            self._add_steady(row)

    def _hold(self, row: Mapping[str, Any]) -> None:
        """Keep a request until the opening is known to be over."""
        self._held.append(row)
        if row["request_index"] in self.opening:
            self._first.append(row)
        if len(self._first) < len(self.opening):
            return
        self._over_ns = opening_end_ns(self.concurrency, self._first)
        if self._over_ns is not None:
            self._opening_s = (self._over_ns - min(asked_ns(each) or 0 for each in self._first)) / 1e9
            for each in self._held:
                if (asked_ns(each) or 0) > self._over_ns:
                    self._add_steady(each)
            self._held.clear()

    def _add_steady(self, row: Mapping[str, Any]) -> None:
        self._steady += 1
        self._add_to(row, steady_only=True)

    def _add_to(self, row: Mapping[str, Any], *, steady_only: bool) -> None:
        good = is_good(row, self.limits) is not False  # what cannot be judged may have been good
        for state in self._states:
            value = state.slo.metric.adds(row, good) if state.of_steady == steady_only else None
            if value is not None:
                state.add(value)

    def broken(self, elapsed_s: float | None) -> list[Condition]:
        """Return the SLOs certain to fail, ``elapsed_s`` after the start; none once all requests have ended."""
        if self.planned is None or (remaining := self.planned - self.seen) <= 0:
            return []
        steady_s = None if elapsed_s is None else elapsed_s - self._opening_s
        return [
            state.slo
            for state in self._states
            if state.is_broken(self.planned - self._steady if state.of_steady else remaining, steady_s)
        ]


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

    @property
    def of_steady(self) -> bool:
        """Whether the figure is of the steady requests, not of all."""
        return self.slo.metric.kind in ("latency", "rate")

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
