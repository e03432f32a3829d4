"""Scoring: one pure function from a case and an answer to a score, which never raises whatever the answer contains.

docs/scoring.md defines every word. jsonschema is imported with the first schema, so importing this package is cheap.
"""

from __future__ import annotations

from structbench.scoring.answer import Answer, CannotScore, unscored
from structbench.scoring.structured import score_json
from structbench.scoring.text import score_text
from structbench.scoring.tools import score_tools
from structbench.types import Case, Score

__all__ = ["SCORER_VERSION", "Answer", "score", "unscored"]

SCORER_VERSION = 5
"""Raise it with any change that gives some answer another score: it is part of the identity of scored cells."""


def score(case: Case, answer: Answer) -> Score | None:
    """Score an answer; None for a case that does not say what is right."""
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
