"""The rules by which the Berkeley Function Calling Leaderboard judges a call: types strictly, values leniently.

docs/scoring.md lists the deliberate differences from BFCL's own checker, with examples.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from structbench.scoring.values import json_equal
from structbench.types import ToolOutcome


class Verdict(NamedTuple):
    """The rung that a call reached, and the argument that stopped it there."""

    rung: ToolOutcome
    argument: str = ""


KINDS: Mapping[Any, type] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict,
}  # fmt: skip
"""JSON Schema type -> the Python type that a value must have."""
LEFT_OUT = ""
"""As an acceptable value: the argument may be left out."""
_IGNORED = re.compile(r"[ ,./\-_*^]")


def judge(arguments: Mapping[str, Any], allowed: Mapping[str, Sequence[Any]], schema: Mapping[str, Any]) -> Verdict:
    """Find the first rung that the arguments fail, given the acceptable values and the tool's parameters."""
    properties, required = schema.get("properties"), schema.get("required")
    described = properties if isinstance(properties, Mapping) else {}
    must = [name for name, values in allowed.items() if LEFT_OUT not in values]
    for name in (*must, *map(str, required if isinstance(required, list | tuple) else ())):
        if name not in arguments:
            return Verdict("missing_argument", name)
    for name in arguments:
        if name not in allowed or not isinstance(described.get(name), Mapping):
            return Verdict("unexpected_argument", name)
    rungs = {name: _judge_value(value, allowed[name], described[name]) for name, value in arguments.items()}
    for rung in ("schema_violation", "wrong_value"):
        for name, found in rungs.items():
            if found == rung:
                return Verdict(found, name)
    return Verdict("correct")


def _judge_value(value: Any, acceptable: Sequence[Any], described: Mapping[str, Any]) -> ToolOutcome:
    """Judge one argument; an acceptable value of a type other than the described one admits that type too."""
    kind = _kind(described)
    if kind is float and type(value) is int:
        value = float(value)
    given = _first_kind(acceptable)
    if type(value) not in (kind, given):
        return "schema_violation"
    if given not in (kind, None):
        return "correct" if any(json_equal(value, one) for one in acceptable) else "wrong_value"
    inner = _inner_kind(described)
    if kind is list and not any(_items_fit(value, one, inner) for one in acceptable):
        return "schema_violation"
    return "correct" if any(_matches(value, one, inner) for one in acceptable) else "wrong_value"


def _matches(value: Any, acceptable: Any, inner: type | None) -> bool:
    """Compare strings by their letters and digits, lists in order, objects member by member."""
    match value:
        case dict():
            return isinstance(acceptable, Mapping) and _members_match(value, acceptable)
        case list() if acceptable == LEFT_OUT:
            return not value
        case list() if inner is dict:
            return _objects_match(value, acceptable)
        case list():
            return isinstance(acceptable, list) and json_equal([*map(_standard, value)], [*map(_standard, acceptable)])
        case _:
            return json_equal(_standard(value), _standard(acceptable))


def _objects_match(value: Sequence[Any], acceptable: Any) -> bool:
    """Compare lists of objects in order."""
    return (
        isinstance(acceptable, list)
        and len(value) == len(acceptable)
        and all(
            isinstance(one, Mapping) and isinstance(other, Mapping) and _members_match(one, other)
            for one, other in zip(value, acceptable, strict=True)
        )
    )


def _members_match(value: Mapping[str, Any], acceptable: Mapping[str, Any]) -> bool:
    """Compare each member with its acceptable values; their types are not judged."""
    for name, member in value.items():
        if name not in acceptable:
            return False
        if not any(json_equal(_standard(member), _standard(one)) for one in _listed(acceptable[name])):
            return False
    return all(name in value or LEFT_OUT in _listed(values) for name, values in acceptable.items())


def _listed(values: Any) -> Sequence[Any]:
    return values if isinstance(values, list | tuple) else [values]


def _first_kind(acceptable: Sequence[Any]) -> type | None:
    """Return the type of the first acceptable value, or None if there is none."""
    return next((type(value) for value in acceptable if value != LEFT_OUT), None)


def _inner_kind(described: Mapping[str, Any]) -> type | None:
    items = described.get("items")
    return _kind(items) if isinstance(items, Mapping) else None


def _kind(described: Mapping[str, Any]) -> type | None:
    given = described.get("type")
    return KINDS.get(given) if isinstance(given, str) else None


def _items_fit(value: Any, acceptable: Any, inner: type | None) -> bool:
    """Return whether each item is of the described type or of the acceptable list's."""
    if inner is None or not isinstance(acceptable, list):
        return True
    given = _first_kind(acceptable)
    # A server that writes 5.0 as 5 (Ollama does) must not turn a list of floats into a mistake.
    kinds = {inner, given, int} if inner is float else {inner, given}
    return all(type(item) in kinds for item in value)


def _standard(value: Any) -> Any:
    """Strip a string of blanks, punctuation and case; return any other value as it is."""
    return _IGNORED.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value
