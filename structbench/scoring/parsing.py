"""JSON in an answer: strictly the whole text, or leniently from a code fence or prose.

The time grows linearly with the text: no part is read again after it failed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from structbench import strict_json
from structbench.scoring.answer import as_line
from structbench.scoring.values import MAX_DEPTH, limit_error

JsonSource = Literal["plain", "fenced", "prose"]

_INFO_WORD = re.compile(r"[ \t]*[A-Za-z][\w.+-]*")
# A bracket that no JSON can follow is prose ("see {a, b}"), not the start of broken JSON.
_OPENER = re.compile(r'\{(?=[ \t\n\r]*["}])|\[(?=[ \t\n\r]*(?:[\[{"\]\-0-9]|(?:true|false|null)\b))')
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\\n]++|\\.)*+"?|[\[\]{}]')


@dataclass(frozen=True, slots=True)
class Parsed:
    """A JSON value, or the reason why there is none."""

    value: Any = None
    error: str | None = None


def parse_json(text: str) -> Parsed:
    """Parse a text that must be JSON (RFC 8259) from end to end, without NaN and duplicate names."""
    try:
        value = strict_json.decode(text)
    except (json.JSONDecodeError, strict_json.NotStrict) as error:
        return Parsed(error=as_line(str(error)))
    except RecursionError:
        return Parsed(error=f"nested deeper than {MAX_DEPTH} levels")
    except ValueError as error:  # Python's own limit on the digits of an integer
        return Parsed(error=as_line(f"a number is out of range: {error}"))
    if (reason := limit_error(value)) is not None:
        return Parsed(error=reason)
    return Parsed(value=value)


def find_json(text: str) -> tuple[Any, JsonSource | None]:
    """Find the first JSON value in a code fence, else the first JSON object or array in prose, else (None, None)."""
    for block in _fenced(text):
        if (parsed := parse_json(block)).error is None:
            return parsed.value, "fenced"
    for part in _balanced_parts(text):
        if (parsed := parse_json(part)).error is None:
            return parsed.value, "prose"
    return None, None


def _fenced(text: str) -> Iterator[str]:
    """Yield the contents of the code fences; the last one may be cut off."""
    body: list[str] = []
    fence: str | None = None
    for raw in text.split("\n"):
        if fence is not None and raw.lstrip(" \t").startswith(fence):
            yield "\n".join(body)
            fence = None
            continue
        if fence is None:
            opening = raw.lstrip(" \t")
            if not opening.startswith(("```", "~~~")):
                continue
            fence, body = opening[:3], []
            raw = _INFO_WORD.sub("", opening.lstrip(fence[0]), count=1)
        if raw.rstrip().endswith(fence):
            body.append(raw.rstrip().rstrip(fence[0]))
            yield "\n".join(body)
            fence = None
        else:
            body.append(raw)
    if fence is not None:
        yield "\n".join(body)


def _balanced_parts(text: str) -> Iterator[str]:
    """Yield the parts from an opening bracket to its closing one, none inside another.

    An opening bracket that is never closed ends the search: what follows is a piece of a broken or cut-off value,
    not an answer.
    """
    opener = _OPENER.search(text)
    while opener is not None:
        end = _balanced_end(text, opener.start())
        if end is None:
            return
        yield text[opener.start() : end]
        opener = _OPENER.search(text, end)


def _balanced_end(text: str, start: int) -> int | None:
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text, start):
        token = found[0]
        if token in "{[":
            depth += 1
        elif token in "}]":
            depth -= 1
            if depth == 0:
                return found.end()
    return None
