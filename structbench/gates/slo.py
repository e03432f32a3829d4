"""SLOs judged against what was measured in a cell: pass, fail, undecided or skip. Pure; ``abort`` judges during a load.

Invariant: nothing passes that was not measured: a cell without a complete, valid run is undecided or fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, Literal

from structbench.formatting import plural, printable
from structbench.gates.expressions import Condition
from structbench.metrics import Metric
from structbench.results.measures import Measured, Query, measured

GateOutcome = Literal["pass", "fail", "undecided", "skip"]
_REQUIREMENTS = {"gap": "two chunks", "scored answer": "this score", "request": "this latency"}


@dataclass(frozen=True, slots=True)
class Gate:
    """The judgement of one SLO on one cell."""

    cell: str
    slo: str
    outcome: GateOutcome
    value: float | None
    n: int
    text: str
    """The value with n, and any reason for doubt."""

    @property
    def is_missed(self) -> bool:
        """Whether it ends the command with exit code 99: failed, or could not be judged."""
        return self.outcome in ("fail", "undecided")

    @property
    def line(self) -> str:
        outcome = "FAIL" if self.outcome == "fail" else self.outcome
        return f"{outcome}: {self.cell}: {self.slo}: {self.text}"


@dataclass(slots=True)
class CellResult:
    """The result of one planned cell: its run and its gates."""

    cell: str
    row: Mapping[str, Any] | None = None
    """The cell's run in the view ``summary``; None if it did not run."""
    gates: list[Gate] = field(default_factory=list)


def judge(cell: str, slo: Condition, measured: Measured, row: Mapping[str, Any] | None) -> Gate:
    """Judge one SLO; ``row`` is the run in the view ``summary``, None if there is none."""
    if row is None:
        return Gate(cell, slo.text, "undecided", None, 0, "the cell was not run")
    metric, (value, n) = slo.metric, measured
    if value is None:
        if row.get("completed") and not n and doubt(row) is None:
            text = f"does not apply: no answer here has {_REQUIREMENTS[metric.counts]}"
            return Gate(cell, slo.text, "skip", None, 0, text)
        text = f"needs at least {plural(1, metric.counts)}, but there is none"
        return Gate(cell, slo.text, "undecided", None, n, text)
    text = f"{_distinct_text(metric, value, slo.value)}, n = {plural(n, metric.counts)}"
    if metric.p is not None and n < (few := needed_beyond(metric.p)):
        text += f" (too few to expect one beyond p{metric.p * 100:g}: that takes {few})"
    why = doubt(row)
    outcome: GateOutcome = "fail" if not slo.holds(value) else "undecided" if why is not None else "pass"
    if why is None and row.get("verdict") == "degraded":
        why = f"degraded: {row.get('verdict_reason')}"
    return Gate(cell, slo.text, outcome, value, n, text if why is None else f"{text}; {printable(why)}")


def judge_all(slos: Sequence[Condition], query: Query, results: Sequence[CellResult]) -> None:
    """Judge each condition on each cell, also on cells that never ran, with the goodput limits of its run."""
    metrics = [slo.metric for slo in slos]
    for result in results if slos else ():
        row, found = result.row, dict[str, Measured]()
        if row is not None:
            known = row["goodput_limits"]
            found = measured(query, row["run_id"], metrics, None if known is None else json.loads(known))
        result.gates = [judge(result.cell, slo, found.get(slo.metric.name, Measured(None, 0)), row) for slo in slos]
    settle(results)


def settle(results: Iterable[CellResult]) -> None:
    """Make an SLO that applies to no cell undecided in each, since nothing was judged by it."""
    by_slo: dict[str, list[tuple[CellResult, int]]] = {}
    for result in results:
        for number, gate in enumerate(result.gates):
            by_slo.setdefault(gate.slo, []).append((result, number))
    for places in by_slo.values():
        if all(result.gates[number].outcome == "skip" for result, number in places):
            for result, number in places:
                result.gates[number] = replace(result.gates[number], outcome="undecided")


def needed_beyond(p: float) -> int:
    """Return how many values it takes to expect one beyond the quantile: 1 / (1 - p)."""
    return ceil(round(1 / (1 - p), 6)) if p < 1 else 1


def doubt(row: Mapping[str, Any]) -> str | None:
    """Return why a run (a row of the view ``summary``) cannot make anything pass, or None if it can."""
    if row.get("status") != "complete":
        return f"the run is {row.get('status')}"
    return f"the run is invalid: {row.get('verdict_reason')}" if row.get("verdict") == "invalid" else None


def _distinct_text(metric: Metric, value: float, limit: float) -> str:
    """Return the value with enough digits to tell it from the limit, so that a line cannot contradict itself."""
    text = ""
    for more in range(metric.kind == "share", 15):
        text = metric.text(value, more)
        if value == limit or text != metric.text(limit, more):
            break
    return text
