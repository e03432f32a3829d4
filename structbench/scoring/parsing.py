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
_JSON_START = re.compile(r"[ \t]*(?:[{\[\"\-0-9]|(?:true|false|null)\b|$)")
_THINKING = re.compile(
    r"<(?P<end>/)?(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad)(?:\s[^<>]{0,60})?>"
    r"|\[(?P<end2>/)?THINK\]|◁(?P<end3>/)?think▷"
    r"|<\|channel\|>analysis<\|message\|>|(?P<end4><\|end\|>|<\|channel\|>final<\|message\|>)",
    re.IGNORECASE,
)
"""The tags of DeepSeek, Qwen and others, of Mistral, Kimi and gpt-oss."""
# A bracket that no JSON can follow is prose ("see {a, b}"), not the start of broken JSON.
_OPENER = re.compile(r'\{(?=[ \t\n\r]*["}])|\[(?=[ \t\n\r]*(?:[\[{"\]\-0-9]|(?:true|false|null)\b))')
_QUOTE = re.compile(r'(?<!\\)(?:\\\\)*"')
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
    """Find the first JSON value in a code fence, else the first JSON object or array in prose, else (None, None).

    What the model thought, between tags, is not searched.
    """
    text = after_thinking(text)
    for block in _fenced(text):
        if (parsed := parse_json(block)).error is None:
            return parsed.value, "fenced"
    for part in _balanced_parts(text):
        if (parsed := parse_json(part)).error is None:
            return parsed.value, "prose"
    return None, None


def after_thinking(text: str) -> str:
    """Return the text without what stands between tags for thinking; a tag that nothing closes hides the rest.

    Where only the end is marked, since the chat template had opened it, everything before is thinking.
    """
    depth, kept, place = 0, "", 0
    for tag in _THINKING.finditer(text):
        line = text[text.rfind("\n", 0, tag.start()) + 1 : tag.start()]
        if depth == 0 and len(_QUOTE.findall(line)) % 2:  # within a JSON string, which ends on its own line
            continue
        if not any(tag.groups()):
            kept += text[place : tag.start()] if depth == 0 else ""
            depth += 1
        elif depth:
            depth -= 1
        else:
            kept = ""
        place = tag.end()
    return kept + ("" if depth else text[place:])


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
            raw = _after_info(opening.lstrip(fence[0]))
        if raw.rstrip().endswith(fence):
            body.append(raw.rstrip().rstrip(fence[0]))
            yield "\n".join(body)
            fence = None
        else:
            body.append(raw)
    if fence is not None:
        yield "\n".join(body)


def _after_info(line: str) -> str:
    """Return the JSON that begins on the fence's own line, after the language if it names one."""
    if _JSON_START.match(line):
        return line
    word = _INFO_WORD.match(line)
    rest = line[word.end() :] if word is not None else ""
    return rest if _JSON_START.match(rest) or rest.rstrip().endswith(("```", "~~~")) else ""


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
