"""What an answer was worth: one pure function from a case and an answer to a score.

Invariant: ``score`` depends on its two arguments alone and never raises, whatever the answer holds;
what cannot be judged is ``unscored`` with the reason. docs/scoring.md defines every word.
jsonschema is imported when the first schema is met, so importing this costs nothing.
"""

from __future__ import annotations

from structbench.scoring.answer import Answer, CannotScore, unscored
from structbench.scoring.structured import score_json
from structbench.scoring.text import score_text
from structbench.scoring.tools import score_tools
from structbench.types import Case, Score

__all__ = ["SCORER_VERSION", "Answer", "score", "unscored"]

SCORER_VERSION = 3
"""Raise it with any change that gives some answer another score: it is part of a cell's identity."""


def score(case: Case, answer: Answer) -> Score | None:
    """Score one answer; None for a case that says nothing about what is right."""
    try:
        match case.kind:
            case "text":
                return None
            case "json":
                return score_json(case, answer)
            case "tools":
                return score_tools(case, answer)
            case "answer":
                return score_text(case, answer)
    except CannotScore as error:
        return unscored(str(error))
