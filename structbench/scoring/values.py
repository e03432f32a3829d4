"""JSON values: equality, JSON pointers, and the limits that keep recursive code within Python's recursion limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

MAX_DEPTH = 100
"""Nesting of arrays and objects; validators recurse several frames per level."""
MAX_BITS = 1023
"""Integers beyond the range of a double are refused, as floats are."""

ABSENT: Final = object()
_LEAVES, _ARRAYS = (str, bool), (list, tuple)
_OBJECTS = (dict, Mapping)
"""The plain one first: to ask the other takes several times as long."""


def limit_error(value: Any) -> str | None:
    """Return why a value is beyond RFC 8259 or our limits (depth, range of numbers), or None."""
    level, depth = [value], 0
    while level:
        deeper: list[Any] = []
        is_nested = False
        for item in level:
            if item is None or isinstance(item, _LEAVES):
                continue
            if isinstance(item, _OBJECTS):
                is_nested = True
                if not all(map(_is_text, item)):
                    return "a member name is not a string"
                deeper.extend(item.values())
            elif isinstance(item, _ARRAYS):
                is_nested = True
                deeper.extend(item)
            elif (reason := _number_error(item)) is not None:
                return reason
        depth += is_nested
        if depth > MAX_DEPTH:
            return f"nested deeper than {MAX_DEPTH} levels"
        level = deeper
    return None


def _is_text(name: Any) -> bool:
    return isinstance(name, str)


def _number_error(item: Any) -> str | None:
    if isinstance(item, int):
        return "a number is out of the range of a double" if item.bit_length() > MAX_BITS else None
    if isinstance(item, float):
        return None if math.isfinite(item) else "a number is out of the range of a double, or not a number"
    return f"{type(item).__name__} is not a JSON type"


def json_equal(left: Any, right: Any, *, trim: bool = False) -> bool:
    """Compare JSON values: 1 is 1.0, true is not 1, arrays in order; ``trim`` ignores space around strings."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, str) and isinstance(right, str):
        return left.strip() == right.strip() if trim else left == right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(json_equal(left[name], right[name], trim=trim) for name in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(
            json_equal(one, other, trim=trim) for one, other in zip(left, right, strict=True)
        )
    return bool(left == right)


def at_pointer(value: Any, pointer: str) -> Any:
    """Return the value at a JSON pointer (RFC 6901), or ``ABSENT``."""
    if pointer == "":
        return value
    if not pointer.startswith("/"):
        return ABSENT
    for part in pointer[1:].split("/"):
        token = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and token in value:
            value = value[token]
        elif isinstance(value, list) and is_index(token) and int(token) < len(value):
            value = value[int(token)]
        else:
            return ABSENT
    return value


def pointer_to(path: Sequence[str | int]) -> str:
    """Write the JSON pointer for a path of names and indexes."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def is_index(token: str) -> bool:
    """Return whether a part of a JSON pointer is an index of an array."""
    return token.isascii() and token.isdigit() and len(token) < 10 and (token == "0" or token[0] != "0")
