"""The feature matrix: small questions that show what a server does with think, format, tools and stream. Pure.

Invariant: what could not be seen (a limit was reached) is ``unclear``, not broken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from loadgen.api import DEFAULT_API
from loadgen.api.blame import refusal
from loadgen.api.server import server_api
from loadgen.types import Request
from structbench.errors import BadInput
from structbench.formatting import one_line
from structbench.matrix.client import Endpoint, Reply
from structbench.scoring import Answer, score
from structbench.types import Case, Score

Result = Literal["works", "refused", "ignored", "broken", "unclear", "not offered"]
Think = Literal["unset", "on", "off"]
Question = Literal["text", "format", "tools", "no call", "format+tools", "broken schema", "wrong format"]

ENDPOINTS: tuple[Endpoint, ...] = ("chat", "generate", "v1")
THINK: tuple[Think, ...] = ("unset", "on", "off")
QUESTIONS: tuple[Question, ...] = ("text", "format", "tools", "no call", "format+tools")
REFUSALS: tuple[Question, ...] = ("broken schema", "wrong format")
"""What a server should refuse; asked without ``think`` only."""
_WORST: tuple[Result, ...] = ("broken", "ignored", "unclear", "works")
_EXCERPT = 60

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
    "required": ["name", "age", "city"],
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get current weather for a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
            "required": ["city"],
        },
    },
}
_PROMPTS: Mapping[Question, str] = {
    "text": "Name three colours.",
    "format": "Give a JSON object describing a person called Ada, age 36, who lives in London.",
    "tools": "What is the weather in Paris in celsius?",
    "no call": "Say hello.",
    "format+tools": "What is the weather in Paris in celsius?",
    "broken schema": "hi",
    "wrong format": "hi",
}


@dataclass(frozen=True, slots=True)
class Probe:
    """One combination to try."""

    endpoint: Endpoint
    question: Question
    think: Think
    stream: bool

    @property
    def name(self) -> str:
        """``chat stream think=on format+tools``; the key in the store."""
        return f"{self.endpoint} {'stream' if self.stream else 'whole'} think={self.think} {self.question}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe showed: in general words, and the server's own where they tell more."""

    result: Result
    evidence: str = ""
    example: str = ""


def probes() -> Iterator[Probe]:
    """Yield every combination, endpoint by endpoint."""
    for endpoint, stream in product(ENDPOINTS, (True, False)):
        for question, think in product(QUESTIONS, THINK):
            yield Probe(endpoint, question, think, stream)
        for question in REFUSALS:
            yield Probe(endpoint, question, "unset", stream)


def request_of(probe: Probe, model: str, tokens: int) -> Request:
    """Return the request of a probe, with at most ``tokens`` output tokens."""
    prompt = _PROMPTS[probe.question]
    is_generate = probe.endpoint == "generate"
    return Request(
        index=0, model=model, prompt=prompt if is_generate else None,
        messages=() if is_generate else ({"role": "user", "content": prompt},),
        format=_format(probe), tools=(WEATHER,) if probe.question in ("tools", "no call", "format+tools") else (),
        think=None if probe.think == "unset" else probe.think == "on",
        options={"temperature": 0, "seed": 1, "num_predict": tokens},
    )  # fmt: skip


def _format(probe: Probe) -> dict[str, Any] | str | None:
    match probe.question:
        case "format" | "format+tools":
            return PERSON
        case "broken schema":
            return {"type": "nonsense"}
        case "wrong format":
            return "yaml"
    return None


def judge(probe: Probe, reply: Reply) -> Finding:
    """Judge all that the probe asked for by the reply; the finding is the worst of it, with the evidence."""
    if reply.failure is not None:
        return Finding("unclear" if reply.timed_out else "broken", one_line(reply.failure))
    if reply.status == 404 and not reply.is_json:
        return Finding("not offered", "HTTP 404")
    if reply.error is not None:
        how = f"HTTP {reply.status}" if reply.status != 200 else "HTTP 200 with an error line"
        return Finding(_refusal(probe, reply), f"{how}: {one_line(reply.error)}")
    if not reply.finished:
        return Finding("broken", "the answer ended without its last message", _excerpt(reply.text))
    if probe.question in REFUSALS:
        return Finding("ignored", "answered as if nothing were wrong", _excerpt(reply.text))
    found = [_thinking(probe, reply), _answer(probe, reply)]
    told = [finding for finding in found if finding.result != "works"]
    if not told:
        return Finding("works")
    worst = min((finding.result for finding in told), key=_WORST.index)
    return Finding(worst, "; ".join(finding.evidence for finding in told), told[-1].example)


def _refusal(probe: Probe, reply: Reply) -> Result:
    """Return what an error means: a refusal, unless the server is busy or broke, or only a text was asked for."""
    if reply.status in (429, 503):
        return "unclear"
    if (probe.question, probe.think) == ("text", "unset"):
        return "broken"
    said_no = reply.status == 501 or 400 <= (reply.status or 0) < 500
    return "refused" if said_no or refusal(reply.error or "") else "broken"


def _thinking(probe: Probe, reply: Reply) -> Finding:
    """Return whether the model thought as it was told to, and apart from the answer."""
    if "<think>" in reply.text:
        return Finding("broken", "thinking is left in the text", _excerpt(reply.text))
    match probe.think:
        case "on" if not reply.thinking:
            return Finding("ignored", "no thinking came")
        case "off" if reply.thinking:
            return Finding("ignored", "it thought nevertheless", _excerpt(reply.thinking))
    return Finding("works")


def _answer(probe: Probe, reply: Reply) -> Finding:
    if not reply.text.strip() and not reply.calls:
        if reply.done_reason == "length":
            return Finding("unclear", "the token limit was reached before any answer: give more --tokens")
        return Finding("broken", "the answer is empty")
    match probe.question:
        case "format":
            return _format_found(reply)
        case "tools":
            return _tools_found(reply)
        case "format+tools":
            return _tools_found(reply) if reply.calls else _format_not_tools(reply)
        case "no call":
            return _no_call_found(reply)
    return Finding("works")


def _format_found(reply: Reply) -> Finding:
    judged = _scored(reply, Case(id="format", messages=(), schema=PERSON))
    match judged.outcome:
        case "correct":
            return Finding("works")
        case "truncated":
            return Finding("unclear", "the token limit was reached within the JSON: give more --tokens")
        case "invalid_json" if not reply.text.lstrip().startswith(("{", "[")):
            return Finding("ignored", "the answer is no JSON", _excerpt(reply.text))
        case "invalid_json":
            return Finding("broken", "the JSON is broken", _excerpt(reply.text))
    return Finding("broken", "the JSON breaks the schema", _excerpt("; ".join(judged.validation_errors)))


def _tools_found(reply: Reply) -> Finding:
    # A call that is cut off shows as little of the parser as none: what was said so far is judged.
    judged = _scored(replace(reply, done_reason=None), Case(id="tools", messages=(), tools=(WEATHER,)))
    match judged.outcome:
        case "correct":
            return Finding("works")
        case "no_call" if judged.validation_errors or _looks_like_a_call(reply.text):
            return Finding("broken", "a tool call is left in the text", _excerpt(reply.text))
        case "no_call":
            return Finding("ignored", "no tool call", _excerpt(reply.text))
    return Finding("broken", "the tool call is wrong", _excerpt("; ".join(judged.validation_errors)))


def _looks_like_a_call(text: str) -> bool:
    """Return whether this is a call: as JSON or nearly, of any function, with a tag before it, or as in Python."""
    keys = all(re.search(rf"""["']{key}["']\s*:""", text) for key in ("name", "arguments"))
    return keys or re.search(r"<\|?tool_call|\bget_weather\s*\(", text) is not None


def _format_not_tools(reply: Reply) -> Finding:
    """Judge an answer without a call where both were asked for: at least the format may have been kept."""
    found = _format_found(reply)
    if found.result == "works":
        return Finding("ignored", "no tool call, the format was kept", _excerpt(reply.text))
    return _tools_found(reply) if _looks_like_a_call(reply.text) else found


def _no_call_found(reply: Reply) -> Finding:
    """Judge the answer to a greeting: a call is the model's mistake, a call in the text the parser's."""
    if reply.calls:
        return Finding("broken", "a tool call that nobody asked for", _excerpt(str(reply.calls[0]["name"])))
    found = _tools_found(reply)
    return Finding("works") if found.result == "ignored" else found


def _scored(reply: Reply, case: Case) -> Score:
    judged = score(case, Answer(reply.text, tuple(reply.calls), reply.done_reason))
    assert judged is not None  # both cases say what is right
    return judged


def _excerpt(text: str) -> str:
    return one_line(text, _EXCERPT)


def changes(
    before: Mapping[Any, Mapping[str, Any]], after: Mapping[Any, Mapping[str, Any]]
) -> Iterator[tuple[Any, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield by key what both tried and what differs: another result or HTTP status, or another reason for it."""
    for key, one in before.items():
        other = after.get(key)
        if other is not None and _shown(one) != _shown(other):
            yield key, one, other


def _shown(row: Mapping[str, Any]) -> tuple[Any, ...]:
    # How a refusal is worded names the model and changes with every version.
    return row["result"], row["status"], None if row["result"] == "refused" else row["evidence"]


def pick(rows: Sequence[Mapping[str, Any]], name: str) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return the findings of a server version (or its beginning), a model, or ``model@version``; BadInput if none.

    The key is what can be compared with another side: for a version model and probe, for a model the probe alone.
    """
    model, _, version = name.rpartition("@")
    if model:
        chosen = [row for row in rows if _is_model(row, model) and _is_version(row, version)]
    else:
        chosen = [row for row in rows if _is_version(row, name)] or [row for row in rows if _is_model(row, name)]
    if not chosen:
        versions = dict.fromkeys(row["server_version"] for row in rows)
        models = dict.fromkeys(row["model"] for row in rows)
        known = f"there are {', '.join((*versions, *models))}" if rows else "there are none: run `structbench matrix`"
        raise BadInput(f"no findings of a server version or model {name!r}: {known}")
    of_version = not model and _is_version(chosen[0], name)
    return {(row["model"] if of_version else "", row["probe"]): row for row in chosen}  # the newest comes last


def _is_version(row: Mapping[str, Any], name: str) -> bool:
    version = str(row["server_version"])
    return version == name or version.startswith((f"{name}-", f"{name}."))


def _is_model(row: Mapping[str, Any], name: str) -> bool:
    full_name = server_api(DEFAULT_API).full_name
    return full_name(str(row["model"])) == full_name(name)
