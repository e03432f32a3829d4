"""Scores of structured output.

The ladder: rejected · broken_call · truncated · no_output · invalid_json · schema_violation · wrong_value · correct.
They follow from strict parsing; only the ``…_lenient`` ones and the explanations look into fences and prose.
"""

from __future__ import annotations

from typing import Any

from structbench.scoring.answer import Answer, explain, first_distinct, quoted, told_apart
from structbench.scoring.parsing import Parsed, find_json, parse_json
from structbench.scoring.rules import matches
from structbench.scoring.validation import Violations, violations
from structbench.scoring.values import ABSENT, at_pointer
from structbench.types import Case, JsonOutcome, Score


def score_json(case: Case, answer: Answer) -> Score:
    """Score an answer that should be JSON, valid by the case's schema and with its expected values."""
    if answer.failure is not None or not answer.output_text.strip():
        no_schema = None if case.schema is None else False
        return Score(
            outcome=answer.failure or ("truncated" if answer.cut_off else "no_output"),
            accuracy_score=0.0,
            json_valid=False,
            json_valid_lenient=False,
            json_parse_error="empty answer" if answer.failure is None else None,
            schema_valid=no_schema,
            schema_valid_lenient=no_schema,
        )
    strict = parse_json(answer.output_text)
    value, source = (strict.value, "plain") if strict.error is None else find_json(answer.output_text)
    broken = Violations() if case.schema is None or source is None else violations(case.schema, value)
    valid = strict.error is None and not broken
    share, wrong = _expected_share(case, strict.value) if valid else (0.0, ())
    return Score(
        outcome=_outcome(strict, answer, broken, share),
        accuracy_score=share,
        json_valid=strict.error is None,
        json_valid_lenient=source is not None,
        json_source=source,
        json_parse_error=strict.error,
        schema_valid=None if case.schema is None else valid,
        schema_valid_lenient=None if case.schema is None else source is not None and not broken,
        validation_errors=broken.lines if broken else first_distinct(wrong),
        violated_keywords=broken.keywords,
    )


def _outcome(strict: Parsed, answer: Answer, broken: Violations, share: float) -> JsonOutcome:
    if strict.error is not None:
        return "truncated" if answer.cut_off else "invalid_json"
    if broken:
        return "schema_violation"
    return "correct" if share == 1.0 else "wrong_value"


def _expected_share(case: Case, value: Any) -> tuple[float, tuple[str, ...]]:
    """Return the share of expected values found in place (1 if none are expected), and explain the others."""
    due = {pointer: (expected,) for pointer, expected in (case.expected or {}).items()} | dict(case.acceptable or {})
    if not due:
        return 1.0, ()
    wrong = []
    for pointer, acceptable in due.items():
        found = at_pointer(value, pointer)
        if any(matches(found, expected, case.compare, pointer) for expected in acceptable):
            continue
        if found is ABSENT:
            wanted = " or ".join(quoted(expected) for expected in acceptable)
            wrong.append(explain(pointer, "expected", f"{wanted}, found nothing"))
        else:
            wrong.append(explain(pointer, "expected", told_apart(acceptable, found)))
    return (len(due) - len(wrong)) / len(due), tuple(wrong)
