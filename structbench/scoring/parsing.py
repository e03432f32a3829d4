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
    r"<\|?\s{0,2}(?P<end>/|end_(?:of_)?)?\s{0,2}(?:(?:begin_of|start)_)?(?:\w+:)?"
    r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad)(?:\s[^<>/]{0,60})?\|?>"
    r"|\[(?P<end2>/)?THINK\]|◁(?P<end3>/)?think▷|<\|inner_(?:prefix|(?P<end4>suffix))\|>"
    r"|<\|channel\|>analysis<\|message\|>|<\|channel>thought\b|(?P<end5><\|channel\|>final<\|message\|>|<channel\|>)"
    r"|(?P<close><\|end\|>)",
    re.IGNORECASE,
)
"""The tags of DeepSeek, Qwen and others, of Mistral, Kimi, Cohere, Apertus, gpt-oss and Gemma."""
_BARE_CHANNELS = re.compile(r"\s*(?:assistant)?analysis.*?assistantfinal", re.DOTALL)
"""The channels of gpt-oss where a server has dropped the tokens between them."""
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
    """Find the first JSON value in a code fence, else the first JSON object or array in prose, else (None, None).

    What the model thought, between tags, is not searched.
    """
    text = after_thinking(text)
    for block in _fenced(text):
        if (parsed := parse_json(block)).error is None:
            return parsed.value, "fenced"
    for start, end in _balanced_spans(text):
        if (parsed := parse_json(text[start:end])).error is None:
            return parsed.value, "prose"
    return None, None


def after_thinking(text: str) -> str:
    """Return the text without what stands between tags for thinking.

    Where only the end is marked, since the chat template had opened it, everything before is thinking; what only its
    beginning marks is, if the answer begins with it.
    """
    if (channels := _BARE_CHANNELS.match(text)) is not None:
        text = text[channels.end() :]
    tags = list(_THINKING.finditer(text))
    mentioned = _in_strings(text) if tags else ()
    depth, place, opened = 0, 0, 0
    kept: list[str] = []
    for tag in tags:
        if depth == 0 and (tag.start() in mentioned or tag["close"]):
            continue
        if not any(tag.groups()):
            if depth == 0:
                kept.append(text[place : tag.start()])
                opened = tag.start()
            depth += 1
        elif depth:
            depth -= 1
        else:
            kept.clear()
        place = tag.end()
    if depth == 0:
        kept.append(text[place:])
    elif any(map(str.strip, kept)):
        kept.append(text[opened:])
    return "".join(kept)


def _in_strings(text: str) -> set[int]:
    """Return where tags begin that stand within the strings of JSON objects and arrays, and are only mentioned."""
    return {
        tag.start()
        for start, end in _balanced_spans(text)
        for found in _STRING_OR_BRACKET.finditer(text, start, end)
        if found[0].startswith('"')
        for tag in _THINKING.finditer(text, *found.span())
    }


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


def _balanced_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the parts are from an opening bracket to its closing one, none inside another.

    An opening bracket that is never closed ends the search: what follows is a piece of a broken or cut-off value,
    not an answer.
    """
    opener = _OPENER.search(text)
    while opener is not None:
        end = _balanced_end(text, opener.start())
        if end is None:
            return
        yield opener.start(), end
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
