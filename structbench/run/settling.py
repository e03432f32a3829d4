"""A load that goes on until its rule is decided: it is looked at as its rows grow, and ends once that is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Thread
from time import monotonic
from typing import Any

from loadgen.engine import Orders
from structbench.errors import StructbenchError
from structbench.gates.expressions import Condition
from structbench.gates.settled import Decision, confidence_at, decide, next_look
from structbench.metrics import Metric, limits_of
from structbench.results.intervals import estimates_of
from structbench.stats import Estimate, mean_estimate, percentile_estimate, wilson
from structbench.steadiness import steady_rows
from structbench.store import Store

OPENINGS = 3
"""A closed loop is first looked at after so many times the requests that are in flight: it has a steady part then."""
Row = Mapping[str, Any]
_ROWS = """
SELECT count(requests.run_id) AS n, any_value(goodput_limits) AS limits, any_value(load_kind) = 'closed' AS closed
FROM runs LEFT JOIN requests USING (run_id) WHERE run_id = $1
"""


def look_at(store: Store, run_id: str, rule: Sequence[Condition]) -> Decision:
    """Judge the rule on the rows that the run has now; raise RunFailed if another process holds the database."""
    store.append("runs", {"run_id": run_id, "steady": True})  # marked once the rows before it are in
    (found,) = store.query(_ROWS, [run_id])
    limits = limits_of(found["limits"])
    metrics = [slo.metric for slo in rule]
    return decide(
        rule, found["n"], lambda level: estimates_of(store, run_id, metrics, limits, level), closed=found["closed"]
    )


@dataclass(slots=True)
class Settling:
    """The looks at one cell, whatever the number of its segments; ``note`` and ``watch_time`` are called as it runs.

    A look is at the rows in memory, so that the load does not run on meanwhile; where the rule has rates or gaps, at
    those in the database, in a thread. What was in flight is judged with the rest at the end, in the database.
    """

    rule: Sequence[Condition]
    concurrency: int | None
    """None: an open loop."""
    look: Callable[[], Decision]
    """Judges what the database has."""
    most_s: float
    """Seconds after which the cell ends, decided or not."""
    least: int = 0
    """Requests before which there is no steady part to look at."""
    orders: Orders = field(default_factory=Orders)
    """Those of the segment that runs."""
    decision: Decision | None = None
    rows: dict[int, Row] = field(default_factory=dict)
    """By index, those so far; of earlier loads too."""
    _began: float | None = None
    _next: int = 0
    _busy: Thread | None = None

    def begin(self, orders: Orders) -> None:
        """Begin a segment."""
        self.orders, self._next = orders, next_look(len(self.rows))
        self._began = monotonic() if self._began is None else self._began

    def note(self, row: Row) -> None:
        """Add a row of ``requests``, and look if that makes enough for the next look. Not for two threads at once."""
        self.rows[row["request_index"]] = {name: row.get(name) for name in row if name not in _LARGE}
        if self.orders.enough or len(self.rows) < max(self._next, self.least):
            return
        if any(slo.metric.kind == "rate" or slo.metric.counts == "gap" for slo in self.rule):
            if self._busy is not None and self._busy.is_alive():
                return
            self._busy = Thread(target=self._look_into_database, name="structbench-look", daemon=True)
            self._busy.start()
        else:
            self._end_if(self._look())
        self._next = next_look(len(self.rows))

    def watch_time(self) -> None:
        """End the load if its time is up."""
        if self.is_out_of_time:
            self.orders.enough = True

    @property
    def is_out_of_time(self) -> bool:
        return self._began is not None and monotonic() - self._began > self.most_s

    def finish(self) -> Decision:
        """Judge all that came, what was in flight at the last look included."""
        if self._busy is not None:
            self._busy.join()
        self.decision = self.look()
        return self.decision

    def _look(self) -> Decision:
        rows = [self.rows[index] for index in sorted(self.rows)]
        steady = steady_rows(self.concurrency, rows)
        marked = [{**row, "steady": each} for row, each in zip(rows, steady, strict=True)]
        return decide(
            self.rule, len(rows), lambda level: {s.metric.name: _estimate(marked, s.metric, level) for s in self.rule},
            closed=self.concurrency is not None,
        )  # fmt: skip

    def _look_into_database(self) -> None:
        try:
            self._end_if(self.look())
        except StructbenchError:
            return  # the database is in use: the next look tells

    def _end_if(self, decision: Decision) -> None:
        if decision.state != "not decided":
            self.orders.enough = True


_LARGE = ("chunk_offsets_us", "output_text", "thinking_text", "tool_calls")


def _estimate(rows: Sequence[Row], metric: Metric, confidence: float) -> Estimate:
    """Return a figure of rows in the order they were sent, as ``results.intervals`` does from the database."""
    import numpy as np

    values = np.array([value for row in rows if (value := metric.adds(row, True)) is not None], dtype=float)
    if metric.kind == "share":
        return wilson(min(float(values.sum()), len(values)), len(values), confidence)
    if not len(values):
        return Estimate(0)
    if metric.p is None:
        return mean_estimate(values, -1.0 if metric.kind == "score" else 0.0, confidence)
    return percentile_estimate(values, metric.p, confidence)


def column_of(decision: Decision) -> dict[str, Any]:
    """Return what the column ``settled`` holds of a decision."""
    return {"open": list(decision.open), "requests": decision.requests, "state": decision.state,
            "confidence": confidence_at(decision.requests)}  # fmt: skip
