"""Measures one load after another, each as a cell of its own that a load runs, stores and, if asked to, resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

from structbench.capacity.search import Found, Step, search
from structbench.errors import RunFailed
from structbench.formatting import plural
from structbench.options import LoadOptions
from structbench.run.display import Display
from structbench.run.runner import Stop, Summary, load
from structbench.run.settings import settings_of
from structbench.store import Store

_FACTS = """
SELECT sum(coalesce(prompt_eval_s, 0) + eval_s) / sum(e2e_s) AS served, min(server_slots) AS slots,
    any_value(server_kind) AS kind, any_value(api) AS api,
    (SELECT min(vram_share) FROM samples WHERE run_id = $1) AS vram_share
FROM requests JOIN runs USING (run_id)
WHERE run_id = $1 AND error_kind IS NULL AND steady IS NOT FALSE AND eval_s IS NOT NULL
"""


@dataclass(slots=True)
class Steps:
    """The loads of one model and suite; ``options`` name one of each, and neither concurrency nor rate."""

    options: LoadOptions
    over: str
    """``concurrency`` or ``rate``."""
    within_s: float
    display: Display
    store: Callable[[], Store]
    """Opens the database at the first load; one for all, so that what a step asks does not wait for a reader."""
    stop: Stop = field(default_factory=Stop)
    tell: Callable[[str], None] = lambda _: None
    _began: float = field(default_factory=monotonic)

    def search(self, start: float, most: float) -> Found:
        """Find the highest load at which the rule is kept, within the time there is."""
        return search(self._measure, start, most, whole=self.over == "concurrency", in_time=self._in_time)

    def _in_time(self) -> bool:
        return not self.stop.asked and self._left_s > 0

    @property
    def _left_s(self) -> float:
        return self.within_s - (monotonic() - self._began)

    def _measure(self, level: float) -> Step:
        at: dict[str, Any] = {"concurrency": [int(level)]} if self.over == "concurrency" else {"rate": [level]}
        options = replace(self.options, **at, max_time=max(1.0, min(self.options.max_time, self._left_s)))
        summary = load(settings_of(options), display=self.display, stop=self.stop, opened=self.store)
        step = _step(level, summary, self.store)
        self.tell(f"{summary.outcomes[0].cell}: {step.state} after {plural(step.requests, 'request')}")
        return step


def _step(level: float, summary: Summary, store: Callable[[], Store]) -> Step:
    """Return what a load of one cell showed; raise RunFailed if it showed nothing."""
    (outcome,) = summary.outcomes
    row = outcome.row
    if row is None or (summary.failures and outcome.state != "not met" and not summary.interrupted):
        raise RunFailed("; ".join(summary.failures) or f"{outcome.cell} was not run")
    (facts,) = store().query(_FACTS, [row["run_id"]])
    facts |= {"notes": {note.kind: note.text for note in row["notes"]}, "verdict": row["verdict"],
              "verdict_reason": row["verdict_reason"], "completed": row["completed"],
              "failures": [f"{failure.count:,} × {failure.text}" for failure in row["failures"]]}  # fmt: skip
    return Step(
        level=level, state=outcome.state, run_id=row["run_id"], requests=row["requests"],
        correct_per_s=row["correct_goodput"], requests_per_s=row["requests_per_s"], gates=tuple(outcome.rule),
        facts=facts,
    )  # fmt: skip
