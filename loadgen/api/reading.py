"""Values of an answer as servers write them, whatever their form: objects, texts and counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_TOKENS = 2**31
MOST_NS = 2**53
"""104 days."""
_LONGEST_NAME = 200
_TEXTS = ("text", "value", "content", "thinking", "reasoning", "summary")
"""Fields in which an object has its text."""


def is_shallow(value: Any, levels: int) -> bool:
    """Return whether a JSON value ends within so many levels, its innermost values among them."""
    level = [value]
    for _ in range(levels):
        level = [item for each in level if isinstance(each, dict | list)
                 for item in (each.values() if isinstance(each, dict) else each)]  # fmt: skip
    return not level


def object_of(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object of that name; an empty one for what is something else, which is not what it means here."""
    found = fields.get(name)
    return found if isinstance(found, dict) else {}


def objects_of(found: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list, or the one in its place."""
    return [each for each in (found if isinstance(found, list) else [found]) if isinstance(each, dict)]


def text_of(found: Any) -> str:
    """Return a text, also one in an object or in pieces; TypeError for what holds none."""
    if isinstance(found, str):
        return found
    if found is None or found is False:
        return ""
    if isinstance(found, list):
        return "".join(map(text_of, found))
    if isinstance(found, dict):
        return text_of(next((found[name] for name in _TEXTS if found.get(name)), None))
    raise TypeError(f"{found!r:.100} is not a text")


def word_of(found: Any) -> str | None:
    """Return a reason or a type: a word, also within an object or a list; None for what is none."""
    if isinstance(found, list):
        found = found[0] if found else None
    if isinstance(found, dict):
        found = found.get("type") or found.get("reason")
    return found if isinstance(found, str) else None


def name_of(found: Any) -> str | None:
    """Return a name; None for what is none."""
    return found[:_LONGEST_NAME] if isinstance(found, str) and found else None


def count_of(found: Any) -> int | None:
    """Return a number of tokens; None for what is none, as -1 or a text in its place."""
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < MOST_TOKENS else None


def ns_of(found: Any, unit_ns: int) -> int | None:
    """Return a duration in that unit; None for what is none."""
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    return round(found * unit_ns) if is_number and 0 <= found * unit_ns < MOST_NS else None
