"""The feature matrix: small questions that show what a server does with think, format, tools and stream. Pure.

Invariant: what could not be seen (a limit was reached) is ``unclear``, not broken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from loadgen.api.blame import refusal
from loadgen.api.sending import chat_api
from loadgen.types import ANSWER, Request
from structbench.formatting import one_line
from structbench.matrix.client import PLACES, Endpoint, Reply
from structbench.scoring import Answer, score
from structbench.scoring.answer import answer_text
from structbench.types import Case, Score

Result = Literal["works", "refused", "ignored", "broken", "unclear", "not offered"]
Think = Literal["unset", "on", "off"]
Question = str
"""One of QUESTIONS, TOOL_CHOICES or REFUSALS, or ``format WAY``: another of the API's ways to ask for a schema."""

THINK: tuple[Think, ...] = ("unset", "on", "off")
QUESTIONS: tuple[Question, ...] = ("text", "format", "tools", "no call", "format+tools")
TOOL_CHOICES: tuple[Question, ...] = ("call required", "call named", "call forbidden")
"""What ``tool_choice`` should make the model do, with a question that would have it do otherwise."""
REFUSALS: tuple[Question, ...] = ("broken schema", "wrong format")
"""What a server should refuse; asked without ``think`` only."""
_WAY = "format "
_WITH_TOOLS = ("tools", "no call", "format+tools", *TOOL_CHOICES)
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
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Get the time of day in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_CHOICES: Mapping[str, Mapping[Question, Any]] = {
    "openai": {
        "call required": "required", "call named": {"type": "function", "function": {"name": "get_time"}},
        "call forbidden": "none",
    },
    "responses": {
        "call required": "required", "call named": {"type": "function", "name": "get_time"}, "call forbidden": "none",
    },
    "anthropic": {
        "call required": {"type": "any"}, "call named": {"type": "tool", "name": "get_time"},
        "call forbidden": {"type": "none"},
    },
}  # fmt: skip
"""API -> how it says each ``tool_choice``; Ollama's own has none."""
_PERSON_PROMPT = "Describe a person called Ada, age 36, who lives in London."
"""It does not ask for JSON: what comes as JSON comes of the schema."""
_PROMPTS: Mapping[Question, str] = {
    "text": "Name three colours.",
    "format": _PERSON_PROMPT,
    "tools": "What is the weather in Paris in celsius?",
    "no call": "Say hello.",
    "format+tools": "What is the weather in Paris in celsius?",
    "call required": "Say hello.",
    "call named": "What is the weather in Paris in celsius?",
    "call forbidden": "What is the weather in Paris in celsius?",
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


def probes(endpoints: Sequence[Endpoint] = tuple(PLACES)) -> Iterator[Probe]:
    """Yield every combination, endpoint by endpoint."""
    for endpoint, stream in product(endpoints, (True, False)):
        api = PLACES[endpoint].api_name
        for question, think in product((*QUESTIONS, *_CHOICES.get(api, ())), THINK):
            yield Probe(endpoint, question, think, stream)
        ways = () if endpoint == "generate" else chat_api(api).DIALECTS
        refusals = REFUSALS if api != "anthropic" else REFUSALS[:1]  # it has no format by name
        for question in (*(_WAY + way for way in ways), *refusals):
            yield Probe(endpoint, question, "unset", stream)


def request_of(probe: Probe, model: str, tokens: int, limit_field: str | None = None) -> Request:
    """Return the request of a probe, with at most ``tokens`` output tokens.

    ``limit_field`` has that limit over chat completions, where it is not the usual field.
    """
    prompt = _PROMPTS.get(probe.question, _PERSON_PROMPT)
    is_generate = probe.endpoint == "generate"
    api = PLACES[probe.endpoint].api_name
    choice = _CHOICES.get(api, {}).get(probe.question)
    options = {"temperature": 0, "seed": 1, "num_predict": tokens}
    return Request(
        index=0, model=model, prompt=prompt if is_generate else None,
        messages=() if is_generate else ({"role": "user", "content": prompt},),
        format=_format(probe), tools=_tools(probe), dialect=_way(probe),
        think=None if probe.think == "unset" else probe.think == "on",
        options=options, body={} if choice is None else {"tool_choice": choice}, limit_field=limit_field,
    )  # fmt: skip


def _way(probe: Probe) -> str | None:
    """Return the way to ask for the schema, None for the API's own."""
    return probe.question.removeprefix(_WAY) if probe.question.startswith(_WAY) else None


def _tools(probe: Probe) -> tuple[dict[str, Any], ...]:
    if _way(probe) == "tools":
        return (
            {"type": "function", "function": {"name": ANSWER, "description": "Give the answer.", "parameters": PERSON}},
        )
    if probe.question == "call named":
        return WEATHER, TIME
    return (WEATHER,) if probe.question in _WITH_TOOLS else ()


def _format(probe: Probe) -> dict[str, Any] | str | None:
    if _way(probe) not in (None, "tools"):
        return PERSON
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
    if not reply.offered or (reply.status == 404 and not reply.is_json):
        return Finding("not offered", f"HTTP {reply.status}")
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
    if (way := _way(probe)) is not None:
        return _format_found(replace(reply, text=answer_text(way, reply.text, reply.calls)))
    match probe.question:
        case "call required":
            return _chosen_found(reply, "get_weather")
        case "call named":
            return _chosen_found(reply, "get_time")
        case "call forbidden" if reply.calls:
            return Finding("ignored", "a call although tool_choice forbids it", _excerpt(str(reply.calls[0]["name"])))
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
    begins = reply.text.lstrip().startswith(("{", "["))
    match judged.outcome:
        case "correct":
            return Finding("works")
        case "truncated" if begins:
            return Finding("unclear", "the token limit was reached within the JSON: give more --tokens")
        case "truncated" | "invalid_json" if not begins:
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


def _chosen_found(reply: Reply, name: str) -> Finding:
    """Judge an answer that ``tool_choice`` should have made a call to this function; its arguments are not judged."""
    if not reply.calls:
        if _looks_like_a_call(reply.text):
            return Finding("broken", "a tool call is left in the text", _excerpt(reply.text))
        return Finding("ignored", "no call, as without tool_choice", _excerpt(reply.text))
    called = str(reply.calls[0]["name"])
    return Finding("works") if called == name else Finding("ignored", "a call to another tool", _excerpt(called))


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
