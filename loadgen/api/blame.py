"""Whose failure an error is: the model's (``rejected``, ``broken_call``, ``truncated``), or not. Pure.

Only the server's own words decide. What it quotes (the model's text, a schema, a model's name) is left out first,
for it can hold any word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Literal

Refused = Literal["format", "tools", "thinking"]
ModelError = Literal["rejected", "broken_call", "truncated"]

REPEATS = 30
"""How many equal tokens in a row Ollama's servers take for an endless loop; later versions allow 100."""
_LONGEST_UNIT = 100
"""The longest text, in characters, that counts as one repeated token."""
_STATUSES = (200, 400, 500)

_ABOUT: Mapping[Refused, re.Pattern[str]] = {
    "format": re.compile(r"(?<![a-z])(format|schema|grammar)s?(?![a-z])", re.IGNORECASE),
    "tools": re.compile(r"(?<![a-z])(tools|(?:tool|function)[ _-](?:calling|use|choice))(?![a-z])", re.IGNORECASE),
    "thinking": re.compile(r"(?<![a-z])(think|thinking|reasoning)(?![a-z])", re.IGNORECASE),
}
_ABOUT_ELSE = re.compile(
    r"context (length|window|size)|(out of|system|available|gpu|cuda) memory"
    r"|(model|file|image|audio|video|tensor|weights?|gguf|quanti[sz]ation|checkpoint|prompt|template|chat|message)s?:?"
    r"( unknown| unsupported| invalid)? formats?\b"
    r"|(load|loading|open|opening|read|reading) (the )?(model|weights|gguf)\b(?! vocabulary)|unsupported model\b",
    re.IGNORECASE,
)
"""Marks errors of another kind: a model that does not load, a prompt too long, memory."""
_REPEATED = re.compile(
    r"\b(token|repeat|repetition)\b.{0,20}\b(limit|loop)\b.{0,20}\b(reached|exceeded|detected)\b"
    r"|\b(endless|infinite) (loop|repetition)\b|\brepetition detected\b",
    re.IGNORECASE,
)
_CALL = r"(?:tool|function)[ _-]?calls?\b"
_BROKEN_CALL = re.compile(
    rf"""(?:[\w.]+Error:\s*)?(?:
      (?:an?\ )?(?:error|failed|failure|unable|could\ not|cannot)\b[^:]{{0,60}}\b{_CALL}
    | (?:the\ model\ (?:produced|generated|returned|made)\b[^:]{{0,30}})?
      \b(?:malformed|invalid|incomplete|unparsable|broken)\b[^:]{{0,30}}\b{_CALL}
    | [^:]{{0,40}}\b{_CALL}[^:]{{0,30}}\b(?:pars\w+|decod\w+)\b[^:]{{0,20}}\b(?:fail|error)
    | failed\ to\ (?:call|invoke)\ a\ function
    | failed\ to\ parse\ (?:input\ at\ pos\b|(?:the\ )?(?:model'?s?\ )?(?:output|response)\b)
    | the\ model\ (?:produced|generated|returned)\ (?:an?\ )?(?:output|text|response)
    | unexpected\ tokens?\ (?:\d+\ while\ expecting|remaining\ in\ message\ header)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""Begins the messages of Ollama, llama.cpp, vLLM (Harmony), LM Studio and Groq about a call they could not parse."""
_BARE_PARSER = re.compile(
    r"XML syntax error|invalid character .{1,12} (?:looking|after|in)|unexpected end of JSON input"
    r"|failed to parse (?:json|xml|arguments)\b",
    re.IGNORECASE,
)
"""Begins what a parser says that Ollama passes on bare; at status 400 it is about our request."""
_OF_HISTORY = re.compile(r"failed to parse tool call arguments as JSON", re.IGNORECASE)
"""What llama.cpp says of a call in the request's own messages."""

_QUOTES = re.compile(
    r"raw='.*?(?:', err=|\Z)"  # Ollama's quote of a call, which may hold any quotes itself
    r'|"(?:[^"\\]|\\.)*(?:"|\Z)|`[^`]*(?:`|\Z)|“[^”]*(?:”|\Z)|‘[^’]*(?:’|\Z)|«[^»]*(?:»|\Z)'
    r"|(?<!\w)'(?:[^'\\]|\\.|'(?=\w))*(?:'|\Z)|\{.*\}|\[[^\]]*\]",
    re.DOTALL,
)


def model_error(
    message: str, status: int | None, *, model: str, format: bool, tools: bool, began: bool, replayed: bool = False
) -> ModelError | None:
    """Return which failure of the model an error of the server reports, or None if it reports none.

    ``format`` and ``tools``: whether the request has a schema, tools; ``began``: whether an answer had begun;
    ``replayed``: whether its messages hold calls made earlier.
    """
    if status not in _STATUSES:
        return None
    said = _unwrapped(message).strip()
    if _BROKEN_CALL.match(said) and not (replayed and _OF_HISTORY.match(said)):
        return "broken_call"
    if status != 400 and tools and _BARE_PARSER.match(said):
        return "broken_call"
    own = own_words(said, model)
    if _REPEATED.search(own):
        return "truncated"
    refused = frozenset() if began else _refused(own)
    return "rejected" if ("format" in refused and format) or ("tools" in refused and tools) else None


def refusal(message: str, model: str = "") -> frozenset[Refused]:
    """Return what the server refuses by the text of its error; nothing for an error of another kind."""
    said = _unwrapped(message).strip()
    return frozenset() if _BROKEN_CALL.match(said) else _refused(own_words(said, model))


def _refused(own: str) -> frozenset[Refused]:
    if _ABOUT_ELSE.search(own):
        return frozenset()
    return frozenset(what for what, words in _ABOUT.items() if words.search(own))


def own_words(message: str, model: str = "") -> str:
    """Return the message without what it quotes: texts in quotes, JSON, and the model's name in any form."""
    text = _QUOTES.sub(" ", message)
    name = model.rpartition("/")[2].partition(":")[0]
    if not name:
        return text
    before, tag = r"(?<![\w./:-])(?:[\w.:-]+/)", r":[\w.-]+(?![\w-])"
    forms = [f"{before}+{re.escape(name)}(?:{tag})?", f"{before}*{re.escape(name)}{tag}"]
    if not any(words.fullmatch(name) for words in _ABOUT.values()):  # the bare word may be the server's own
        forms.append(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
    return re.sub("|".join(forms), " ", text, flags=re.IGNORECASE)


def loops(text: str) -> bool:
    """Return whether a text ends in one token over and over, as when a server's repeat guard ends it."""
    if len(text) - len(text.rstrip()) > REPEATS:
        return True
    solid = "".join(text.split())
    return any(
        solid.endswith(solid[-size:] * (REPEATS + 1))
        for size in range(1, min(_LONGEST_UNIT, len(solid) // (REPEATS + 1)) + 1)
    )


def _unwrapped(message: str) -> str:
    """Return the text within the objects in which gateways (and old Ollamas) wrap an error."""
    if not message.lstrip().startswith("{"):
        return message
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):  # cut off by us, or not JSON at all
        cut = re.match(r'\s*\{(?:.*?"(?:message|error)"\s*:)?[\s{]*"', message, re.DOTALL)
        return message if cut is None else message[cut.end() :].replace('\\"', '"')
    inner = found.get("error", found.get("message"))
    if inner is None:
        return ": ".join(str(part) for item in list(found.items())[:1] for part in item)
    return _unwrapped(inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False))
