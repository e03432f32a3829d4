"""The answer as scoring sees it, and the explanations in a score."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import category, normalize

from loadgen.types import NOT_JSON, is_broken, quickly_pickled
from structbench.formatting import without_middle
from structbench.types import Score

MAX_EXPLANATIONS = 10
MAX_LINE = 300

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@quickly_pickled
@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request, without its timing."""

    output_text: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """Each ``{"name": …, "arguments": {…}}``."""
    done_reason: str | None = None
    failure: str | None = None
    """The model's failure that the server reported instead of an answer (of ``loadgen.types.MODEL_ERRORS``)."""

    @property
    def cut_off(self) -> bool:
        """Whether the server ended the answer before the model did."""
        return self.done_reason in ("length", "repeat")


class CannotScore(Exception):
    """The answer cannot be judged because of its case, not of what it says."""


def unscored(reason: str) -> Score:
    """Make the score of an answer that could not be judged."""
    return Score(outcome="unscored", validation_errors=(as_line(reason),))


def explain(pointer: str, keyword: str, message: str) -> str:
    """Write ``JSON pointer: keyword: message``; the empty pointer is written ``(root)``."""
    return as_line(f"{pointer if pointer else '(root)'}: {keyword}: {message}")


def as_line(text: str) -> str:
    """Make any text one printable line of UTF-8, without its middle if it is too long: jsonschema's reason is last."""
    text = without_middle(text, MAX_LINE, 129)
    text = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return without_middle(text, MAX_LINE, 129)


def first_distinct(explanations: Iterable[str]) -> tuple[str, ...]:
    """Return the first ten different explanations, in order."""
    return tuple(dict.fromkeys(explanations))[:MAX_EXPLANATIONS]


def told_apart(acceptable: Sequence[Any], found: object) -> str:
    """Write ``A or B, found C``; texts that look alike (composed letters, kinds of spaces) with their code points."""
    write = quoted
    if isinstance(found, str) and any(isinstance(each, str) and _look(each) == _look(found) for each in acceptable):
        write = _code_points
    return f"{' or '.join(write(each) for each in acceptable)}, found {write(found)}"


def _look(text: str) -> str:
    """Return a text that is equal for texts that look alike."""
    shown = "".join(letter for letter in normalize("NFKC", text) if category(letter) not in ("Cf", "Cc"))
    return " ".join(shown.split())


def _code_points(value: object) -> str:
    return without_middle(ascii(value), 100, 29)


def quoted(value: object) -> str:
    """Write a value as explanations show it."""
    text = value if isinstance(value, str) else repr(value)
    text = without_middle(text, 100, 29)
    return repr(text) if isinstance(value, str) else text


def answer_text(structured: str, output_text: str, tool_calls: Sequence[Mapping[str, Any]]) -> str:
    """Return the text to judge: where the schema was sent as a tool's parameters, the arguments of the first call."""
    if structured != "tools" or not tool_calls:
        return output_text
    arguments = tool_calls[0].get("arguments")
    if isinstance(arguments, Mapping) and is_broken(tool_calls[0]):
        return str(arguments[NOT_JSON])
    return json.dumps(arguments, ensure_ascii=False)
