"""The result of a comparison: one metric of one pair, one pair, all pairs; and how a change is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from structbench.comparison.pairing import Pair, Pairing
from structbench.comparison.significance import Difference
from structbench.formatting import ABSENT
from structbench.gates.slo import Gate
from structbench.metrics import Metric
from structbench.stats import CONFIDENCE

Judgement = Literal["better", "worse", "no detectable difference", "too few", "not comparable"]


@dataclass(frozen=True, slots=True)
class Compared:
    """The comparison of one metric for one pair."""

    metric: Metric
    a: float | None
    b: float | None
    n_a: int
    n_b: int
    difference: Difference | None = None
    untested: Literal["too few", "not comparable"] | None = None
    why: str | None = None
    """Why there is no interval, or what it excludes."""
    adjusted_p: float | None = None
    gated: bool = False
    """Whether --fail-on names it; those tests are a family of their own."""

    @property
    def significant(self) -> bool:
        return self.adjusted_p is not None and self.adjusted_p <= 1 - CONFIDENCE

    @property
    def word(self) -> Judgement:
        if self.difference is None:
            return "not comparable" if self.untested is None else self.untested
        if not self.significant:
            return "no detectable difference"
        return "better" if (self.difference.value < 0) == self.metric.lower_is_better else "worse"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of one pair of cells; no rows if they are not comparable."""

    pair: Pair
    rows: tuple[Compared, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    comparisons: tuple[Comparison, ...]
    pairing: Pairing
    tested: int
    """How many tests --fail-on does not name."""
    gated: int
    """How many tests it names."""
    gates: tuple[Gate, ...]


def change_text(row: Compared) -> str:
    """Return the change relative to A, ``+14 %``; for shares ``-3.3 pp``; if A is 0, in the metric's unit."""
    return ABSENT if row.a is None or row.b is None else _bounds_text(row, row.b - row.a)


def interval_text(row: Compared) -> str:
    """Return the interval, ``+3 … +21 %``, in the unit of ``change_text``."""
    return ABSENT if row.difference is None else _bounds_text(row, row.difference.low, row.difference.high)


def _bounds_text(row: Compared, *ends: float) -> str:
    if row.metric.kind == "share":
        return f"{' … '.join(_signed(end * 100) for end in ends)} pp"
    if row.metric.kind == "score":
        return " … ".join(f"{end:+.2f}" for end in ends)
    if row.a:
        return f"{' … '.join(_signed(end / row.a * 100) for end in ends)} %"
    return " … ".join(f"{end:+.3g}" for end in ends) + (" s" if row.metric.kind == "latency" else "/s")


def _signed(percent: float) -> str:
    return f"{percent:+.1f}" if abs(percent) < 9.95 else f"{percent:+,.0f}"
