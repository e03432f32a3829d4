"""Scores of plain answers: no_output · truncated · wrong_value · correct.

Invariant: only the very text that is expected, apart from white space around it, is correct; nothing else
is forgiven but what the case's own rules forgive.
"""

from __future__ import annotations

from structbench.scoring.answer import Answer, explain, shown
from structbench.scoring.comparing import text_under
from structbench.types import Case, Score


def score_text(case: Case, answer: Answer) -> Score:
    """Compare the answer with the case's expected text, or texts."""
    expected = [text.strip() for text in (case.acceptable or {}).get("", (case.expected_text or "",))]
    rule = case.compare.get("", {})
    text = answer.output_text.strip()
    if answer.rejected:
        return Score(outcome="rejected", accuracy_score=0.0)
    if any(text_under(rule, text) == text_under(rule, right) for right in expected):
        return Score(outcome="correct", accuracy_score=1.0)
    if not text:
        return Score(outcome="no_output", accuracy_score=0.0)
    return Score(
        outcome="truncated" if answer.done_reason == "length" else "wrong_value",
        accuracy_score=0.0,
        validation_errors=(explain("", "expected", f"{' or '.join(map(shown, expected))}, found {shown(text)}"),),
    )
