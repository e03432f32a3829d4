"""Scores of plain answers: rejected · broken_call · no_output · truncated · wrong_value · correct."""

from __future__ import annotations

import re
from collections.abc import Iterable

from structbench.scoring.answer import Answer, explain, first_distinct, quoted
from structbench.scoring.rules import normalized
from structbench.types import Case, JsonOutcome, Score

_LETTER = "[^\\W\\d_\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]"
"""A letter of a script that separates words, as Thai, Lao, Burmese, Khmer, Japanese and Chinese do not."""
_BOUNDARIES = {
    "digit": (r"(?<!\d)(?<!\d[.,])(?<![-\u2013\u2212])", r"(?!\d|[.,]\d)"),
    "letter": (f"(?<!{_LETTER})", f"(?!{_LETTER})"),
    "other": ("", ""),
}
"""What must not precede and follow a mention, by its own first and last character; a dash counts as a sign."""


def score_text(case: Case, answer: Answer) -> Score:
    """Score an answer by the case's expected texts, or by the share of texts that it must mention."""
    if answer.failure is not None:
        return Score(outcome=answer.failure, accuracy_score=0.0)
    text = answer.output_text.strip()
    if case.mentions:
        missing = [
            group for group in case.mentions if not any(is_mentioned(each, answer.output_text) for each in group)
        ]
        share = 1 - len(missing) / len(case.mentions)
        wrong = first_distinct(explain("", "mentions", f"{_either(group)} is missing") for group in missing)
    else:
        expected = [each.strip() for each in (case.acceptable or {}).get("", (case.expected_text or "",))]
        rule = case.compare.get("", {})
        share = float(any(normalized(rule, text) == normalized(rule, right) for right in expected))
        wrong = (explain("", "expected", f"{_either(expected)}, found {quoted(text)}"),)
    if share == 1:
        return Score(outcome="correct", accuracy_score=1.0)
    if not text:
        return Score(outcome="truncated" if answer.cut_off else "no_output", accuracy_score=0.0)
    outcome: JsonOutcome = "truncated" if answer.cut_off else "wrong_value"
    return Score(outcome=outcome, accuracy_score=share, validation_errors=wrong)


def _either(texts: Iterable[str]) -> str:
    return " or ".join(map(quoted, texts))


def is_mentioned(text: str, answer: str) -> bool:
    """Return whether the answer contains the text in any case, not within a longer word or number: 7 is in 7C, but
    not in 17, 7.5 or -7."""
    before, after = _BOUNDARIES[_edge(text[:1])][0], _BOUNDARIES[_edge(text[-1:])][1]
    return re.search(before + re.escape(text) + after, answer, re.IGNORECASE) is not None


def _edge(character: str) -> str:
    return "digit" if character.isdecimal() else "letter" if re.match(_LETTER, character) else "other"
