"""What of a suite's schemas is not what it seems.

Of a tool's parameters, Ollama's server shows the model only a part: the rest binds the score, but is not known to it.
Keywords that no draft knows bind neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from structbench.scoring.schemas import odd_keywords
from structbench.types import Case

SHOWN = frozenset({
    "type", "properties", "required", "items", "enum", "description", "anyOf", "$defs", "$ref", "title", "$schema",
    "$comment", "examples", "default",
})  # fmt: skip
"""Keywords that a server's template gets, or that bind nothing."""


def hidden_keywords(cases: Iterable[Case]) -> dict[str, int]:
    """Return each keyword of tools' parameters that the model does not see, and in how many tools it stands."""
    found: dict[str, int] = {}
    for tool in {id(tool): tool for case in cases for tool in case.tools}.values():
        for keyword in {*_hidden(tool["function"].get("parameters", {}))}:
            found[keyword] = found.get(keyword, 0) + 1
    return dict(sorted(found.items()))


def keyword_notes(cases: Iterable[Case]) -> list[str]:
    """Return a line for each keyword in the schemas that binds nothing, or is met by nothing, with its first case."""
    told: dict[tuple[str, str], str] = {}
    for case in cases:
        schemas = [case.schema or {}, *(tool["function"].get("parameters") or {} for tool in case.tools)]
        for schema in schemas:
            for odd in odd_keywords(schema).items():
                told.setdefault(odd, case.id)
    return [f'case "{name}": "{keyword}" {hint}' for (keyword, hint), name in told.items()]


def _hidden(schema: Any) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        return
    for keyword, value in schema.items():
        if keyword not in SHOWN and not (keyword == "additionalProperties" and value is False):
            yield keyword
        elif keyword in ("properties", "$defs"):
            for inner in value.values():
                yield from _hidden(inner)
        elif keyword == "anyOf":
            for inner in value:
                yield from _hidden(inner)
        elif keyword == "items":
            yield from _hidden(value)
