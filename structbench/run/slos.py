"""The gates of a load: what --slo asks of each cell, asked of its rows.

Invariant: every cell that was planned is judged, those that never ran too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from structbench.gates.expressions import Condition, parse_limits, parse_slo
from structbench.gates.slo import Outcome, Watch, judge, settle
from structbench.options import LoadOptions
from structbench.results.measures import Measured, Query, measured

if TYPE_CHECKING:
    from structbench.run.plan import PlannedCell

_ROWS = "SELECT * EXCLUDE (chunk_offsets_us, output_text, thinking_text) FROM requests WHERE run_id = $1"


def conditions(options: LoadOptions) -> list[Condition]:
    return [parse_slo(text) for text in options.slo]


def limits(options: LoadOptions) -> dict[str, float] | None:
    """What --goodput says; None: nothing."""
    return None if options.goodput is None else parse_limits(options.goodput)


def watch(options: LoadOptions, planned: PlannedCell, query: Query) -> Watch | None:
    """With --abort-on-slo: what is watched, with what an earlier segment brought and need not be sent again."""
    if not options.abort_on_slo:
        return None
    watching = Watch(conditions(options), planned.cell.requests, limits(options) or {})
    if planned.continued is not None:
        again = set(planned.missing or ())
        for row in query(_ROWS, [planned.continued.run_id]):
            if row["request_index"] not in again:
                watching.add(row)
    return watching


def judge_all(options: LoadOptions, query: Query, outcomes: Iterable[Outcome]) -> None:
    """Hold each --slo against each cell, with the goodput limits that its run has."""
    outcomes, wanted = list(outcomes), conditions(options)
    metrics = [slo.metric for slo in wanted]
    for outcome in outcomes:
        row, found = outcome.row, dict[str, Measured]()
        if row is not None:
            known = row["goodput_limits"]
            found = measured(query, row["run_id"], metrics, None if known is None else json.loads(known))
        outcome.gates = [judge(outcome.cell, slo, found.get(slo.metric.name, Measured(None, 0)), row) for slo in wanted]
    settle(outcomes)
