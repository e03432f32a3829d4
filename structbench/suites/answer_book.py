"""Correct answers to the shipped suites, for the simulated server to give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from structbench.suites.catalog import shipped_lines
from structbench.suites.generated import number_case
from structbench.suites.requests import with_schema

MAX_NUMBERS = 1000
"""How many cases of ``numbers`` the answer book knows."""


def answer_book(seed: int = 0) -> dict[str, dict[str, Any]]:
    """Map the last user message of each shipped case that has one to a correct answer.

    An answer is ``{"json": value}``, ``{"calls": [{"name", "arguments"}]}`` (``then``: the text after their results) or
    ``{"text": digits}``; ``numbers`` is covered by its first 1000 cases for this seed.
    """
    book: dict[str, dict[str, Any]] = {}
    for line in shipped_lines("json"):
        for case in line.cases:
            book[_question(case.messages)] = {"json": line.example}
            if case.schema is not None:  # the same question without ``format``
                book[_question(with_schema(case.messages, case.schema))] = {"json": line.example}
    for name in ("tools", "turns"):
        for line in shipped_lines(name):
            first, *later = line.cases
            answer: dict[str, Any] = {"calls": [_first_acceptable(call) for call in first.expected_calls or ()]}
            if later:
                answer["then"] = " ".join(group[0] for group in later[0].mentions)
            book[_question(first.messages)] = answer
    for index in range(MAX_NUMBERS):
        case = number_case(index, seed=seed)
        book[_question(case.messages)] = {"text": case.expected_text}
    return book


def _first_acceptable(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the call with the first acceptable value of each argument; ``""`` omits it."""
    arguments = {name: values[0] for name, values in call["arguments"].items() if values[0] != ""}
    return {"name": call["name"], "arguments": arguments}


def _question(messages: Sequence[Mapping[str, Any]]) -> str:
    return str(next(m["content"] for m in reversed(messages) if m["role"] == "user"))
