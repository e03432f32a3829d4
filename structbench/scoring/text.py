"""Scores of plain answers: no_output · truncated · wrong_value · correct.

Invariant: only the very text that is expected, apart from white space around it, is correct;
no separators, words or case are forgiven.
"""

from __future__ import annotations

from structbench.scoring.answer import Answer, explain, shown
from structbench.types import Case, Score


def score_text(case: Case, answer: Answer) -> Score:
    """Compare the answer with the case's ``expected_text``."""
    expected = "" if case.expected_text is None else case.expected_text.strip()
    text = answer.output_text.strip()
    if answer.rejected:
        return Score(outcome="rejected", accuracy_score=0.0)
    if text == expected:
        return Score(outcome="correct", accuracy_score=1.0)
    if not text:
        return Score(outcome="no_output", accuracy_score=0.0)
    return Score(
        outcome="truncated" if answer.done_reason == "length" else "wrong_value",
        accuracy_score=0.0,
        validation_errors=(explain("", "expected", f"{shown(expected)}, found {shown(text)}"),),
    )
