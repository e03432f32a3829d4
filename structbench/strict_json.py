"""Strict JSON: exactly one value as in RFC 8259, without NaN and without duplicate names in an object."""

from __future__ import annotations

import json
import math
from typing import Any

from loadgen.api.reading import is_shallow


class NotStrict(ValueError):
    """The text passes Python's json, but is not strict JSON."""


class NotJson(Exception):
    """A file does not hold exactly one JSON value; the message says where and why in one line."""


def decode(text: str) -> Any:
    """Parse the text; raise json.JSONDecodeError (with the place), another ValueError, or RecursionError."""
    return _DECODER.decode(text)


def stored(text: str | None) -> Any:
    """Return what JSON text of a results file holds, which anybody may have written; None without one.

    None stands for a number beyond floats, and for all of what is nested too deeply to work with.
    """
    try:
        value = None if text is None else _STORED.decode(text)
    except (ValueError, RecursionError):
        return None
    may_be_deep = text is not None and text.count("[") + text.count("{") > _DEEPEST
    return None if may_be_deep and not is_shallow(value, _DEEPEST) else value


def _float(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _int(text: str) -> int | None:
    return int(text) if len(text) <= _DIGITS else None


def decode_file(data: bytes, hint: str) -> Any:
    """Parse a file whose content will be sent on; raise NotJson, also if UTF-8 cannot encode the value.

    ``hint`` follows the error in brackets.
    """
    try:
        value = decode(data.decode("utf-8-sig"))
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeDecodeError as error:
        raise NotJson(f"not UTF-8 at byte {error.start + 1}: save the file as UTF-8") from None
    except UnicodeEncodeError:
        raise NotJson("not JSON: unpaired surrogate: write the character itself") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise NotJson(f"not JSON at {place}: {error.msg} ({hint})") from None
    except (ValueError, RecursionError) as error:
        raise NotJson(f"not JSON: {error} ({hint})") from None
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise NotStrict(f"duplicate member name {json.dumps(name)}")
            seen.add(name)
    return members


def _no_constant(name: str) -> Any:
    raise NotStrict(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_no_constant)

_DEEPEST = 100
_DIGITS = 300
_STORED = json.JSONDecoder(parse_float=_float, parse_int=_int, parse_constant=lambda _: None)
