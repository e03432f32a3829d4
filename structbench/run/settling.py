"""A load that goes on until its rule is decided: it is looked at as its rows grow, and ends once that is enough."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock, Thread
from time import monotonic
from typing import Any

from loadgen.engine import Orders
from structbench.errors import StructbenchError
from structbench.gates.expressions import Condition
from structbench.gates.settled import Decision, confidence_at, decide, next_look
from structbench.results.intervals import estimates_of
from structbench.store import Store

_ROWS = """
SELECT count(requests.run_id) AS n, any_value(goodput_limits) AS limits
FROM runs LEFT JOIN requests USING (run_id) WHERE run_id = $1
"""


def look_at(store: Store, run_id: str, rule: Sequence[Condition]) -> Decision:
    """Judge the rule on the rows that the run has now; raise RunFailed if another process holds the database."""
    store.append("runs", {"run_id": run_id, "steady": True})  # marked once the rows before it are in
    (found,) = store.query(_ROWS, [run_id])
    limits = None if found["limits"] is None else json.loads(found["limits"])
    metrics = [slo.metric for slo in rule]
    return decide(rule, found["n"], lambda level: estimates_of(store, run_id, metrics, limits, level))


@dataclass(slots=True)
class Settling:
    """The looks at one cell, whatever the number of its segments; ``note`` and ``watch_time`` are called as it runs."""

    look: Callable[[], Decision]
    most_s: float
    """Seconds after which the cell ends, decided or not."""
    least: int = 0
    """Requests before which there is no steady part to look at."""
    orders: Orders = field(default_factory=Orders)
    """Those of the segment that runs."""
    decision: Decision | None = None
    _began: float | None = None
    _next: int = 0
    _busy: Thread | None = None
    _lock: Lock = field(default_factory=Lock)

    def begin(self, orders: Orders, rows: int) -> None:
        """Begin a segment of a run that has so many rows."""
        self.orders, self._next = orders, next_look(rows)
        self._began = monotonic() if self._began is None else self._began

    def note(self, rows: int) -> None:
        """Look, in a thread of its own, if the run has rows enough for the next look."""
        with self._lock:
            is_busy = self._busy is not None and self._busy.is_alive()
            if rows < max(self._next, self.least) or is_busy or self.orders.enough:
                return
            self._next = next_look(rows)
            self._busy = Thread(target=self._look, name="structbench-look", daemon=True)
            self._busy.start()

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

    def _look(self) -> None:
        try:
            decided = self.look().state != "not decided"
        except StructbenchError:
            return  # the database is in use: the next look tells
        if decided:
            self.orders.enough = True


def column_of(decision: Decision) -> dict[str, Any]:
    """Return what the column ``settled`` holds of a decision."""
    return {"open": list(decision.open), "requests": decision.requests, "state": decision.state,
            "confidence": confidence_at(decision.requests)}  # fmt: skip
