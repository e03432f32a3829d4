"""Wrong answers and failed requests, a few of each kind, with their prompts.

Prompts are in the file; for runs of versions that did not keep them, only if the suite found now is that of the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from structbench.errors import BadInput
from structbench.metrics import FAILED
from structbench.results.figures import runs_of
from structbench.results.groups import RunGroup
from structbench.results.intervals import GROUPS, Rows
from structbench.strict_json import stored
from structbench.suites.catalog import load_suite
from structbench.suites.generated import TextShape
from structbench.suites.requests import case_of
from structbench.types import Case, Suite

MAX_PER_OUTCOME = 3
"""The maximum per run group and outcome, from different cases where possible."""
MAX_LISTED = 120
"""The maximum in all."""
MAX_CHARACTERS = 4000
"""The maximum length of each text."""
RIGHT = ("correct", "completed")

_CHOSEN = f"""
WITH {GROUPS}, wrong AS (
    SELECT line, run_id, request_index, outcome, row_number() OVER (
        PARTITION BY line, outcome ORDER BY repeat, request_index) AS place
    FROM requests JOIN line USING (run_id) WHERE outcome NOT IN (SELECT unnest($right::VARCHAR[]))
), chosen AS (SELECT * FROM wrong WHERE place <= $per_outcome ORDER BY place, line, outcome LIMIT $most)
SELECT c.line, c.run_id, c.request_index, r.case_id, r.repeat, r.outcome, r.error_kind, r.error_status,
    r.error_message, r.accuracy_score, r.json_parse_error, r.validation_errors, r.done_reason,
    left(r.output_text, $letters) AS output_text, length(r.output_text) AS output_letters,
    left(r.thinking_text, $letters) AS thinking_text, length(r.thinking_text) AS thinking_letters,
    left(r.tool_calls::VARCHAR, $letters) AS tool_calls, length(r.tool_calls::VARCHAR) AS tool_calls_letters,
    k.asked AS kept
FROM chosen AS c JOIN requests AS r USING (run_id, request_index) JOIN runs USING (run_id)
    LEFT JOIN cases AS k ON k.suite_hash = runs.config ->> '$.suite_hash' AND k.case_id = r.case_id
ORDER BY c.line, r.outcome, r.request_index
"""
_TOTAL = f"""
WITH {GROUPS} SELECT count(*) AS n FROM requests JOIN line USING (run_id)
WHERE outcome NOT IN (SELECT unnest($right::VARCHAR[]))
"""

_KINDS = f"""
WITH {GROUPS}
SELECT outcome, count(*) AS count, list(DISTINCT line ORDER BY line) AS lines,
    arg_min(coalesce(validation_errors[1], json_parse_error, error_message), (line, request_index)) AS first
FROM requests JOIN line USING (run_id)
WHERE outcome NOT IN (SELECT unnest($right::VARCHAR[])) AND NOT {FAILED} AND error_kind IS DISTINCT FROM 'cancelled'
GROUP BY outcome ORDER BY count DESC, outcome
"""


@dataclass(frozen=True, slots=True)
class WrongKind:
    """Answers that were wrong alike: ``lines`` are the ids of their run groups, ``first`` what one of them broke."""

    outcome: str
    count: int
    lines: Sequence[int]
    first: str | None


def wrong_kinds(rows: Rows, groups: Sequence[RunGroup]) -> list[WrongKind]:
    """Return what was wrong with answers, the most frequent first; requests that failed are not among them."""
    found = rows.query(_KINDS, {**runs_of(groups), "right": list(RIGHT)})
    return [WrongKind(**row) for row in found]


def wrong_of(reader: Rows, groups: Sequence[RunGroup]) -> dict[str, Any]:
    """Return ``total`` and ``listed``: the columns of ``requests`` and ``asked`` (see ``asked_of``) or None."""
    params = {**runs_of(groups), "right": list(RIGHT)}
    total = reader.query(_TOTAL, params)[0]["n"]
    limits = {"per_outcome": MAX_PER_OUTCOME, "most": MAX_LISTED, "letters": MAX_CHARACTERS}
    rows = reader.query(_CHOSEN, {**params, **limits})
    older = {row["line"] for row in rows if row["kept"] is None}
    suites = {group.id: _suite_of(group.config) for group in groups if group.id in older}
    listed = []
    for row in rows:
        kept = row.pop("kept")
        asked = _asked_by_row(suites[row["line"]], row) if kept is None else _as_kept(kept)
        listed.append({**row, "asked": asked})
    return {"total": total, "listed": listed}


def _as_kept(text: str) -> dict[str, Any] | None:
    """Return what ``asked_of`` returned, as the file has it; None if it has something else."""
    match stored(text):
        case {"messages": [*messages], **more}:
            asked = [{name: str(each.get(name)) for name in ("role", "content")}
                     for each in messages if isinstance(each, dict)]  # fmt: skip
            told = {name: more.get(name) for name in ("schema", "tools", "expected")}
            return {"messages": asked, **{name: None if value is None else str(value) for name, value in told.items()}}
    return None


def _suite_of(config: Mapping[str, Any]) -> Suite | None:
    """Return the suite that was run, if available; not ``text``, whose prompts were fitted to the model's tokenizer."""
    name, seed = config.get("suite"), config.get("seed")
    if not isinstance(name, str) or not isinstance(seed, int) or name == "text":
        return None
    try:
        suite = load_suite(name, text=TextShape(), seed=seed)
    except BadInput:
        return None
    return suite if suite.content_hash == config.get("suite_hash") else None


def _asked_by_row(suite: Suite | None, row: Mapping[str, Any]) -> dict[str, Any] | None:
    if suite is None:
        return None
    case, _ = case_of(suite.cases, row["request_index"])
    return asked_of(case) if case.id == row["case_id"] else None


def asked_of(case: Case) -> dict[str, Any]:
    """Return ``messages`` (role, content) and, as JSON text or None, ``schema``, ``tools`` and ``expected``."""
    expected = [each for each in (case.expected, case.expected_calls, case.expected_text) if each is not None]
    return {
        "messages": [{"role": str(each["role"]), "content": _cut(str(each.get("content")))} for each in case.messages],
        "schema": _json_text(case.schema),
        "tools": _json_text(list(case.tools) or None),
        "expected": _json_text(expected[0] if expected else None),
    }


def _cut(text: str) -> str:
    more = len(text) - MAX_CHARACTERS
    return text if more <= 0 else f"{text[:MAX_CHARACTERS]}\n… and {more:,} more characters"


def _json_text(value: Any) -> str | None:
    return None if value is None else _cut(json.dumps(value, ensure_ascii=False, indent=1))
