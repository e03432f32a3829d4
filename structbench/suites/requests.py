"""From a case to the request that is sent: the same case, index and options always give the same request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from loadgen.types import ANSWER, Request
from structbench.suites.generated import GeneratedCases
from structbench.types import Case, Config

_SCHEMA_PROMPT = "Answer with one JSON value only, no code fence and no other text. It must satisfy this JSON Schema:\n"
_WARMUP_TOKENS = 4
_BYTES_PER_TOKEN = 4


def case_of(cases: Sequence[Case], index: int) -> tuple[Case, int]:
    """Return the case of a request and its repeat: cases start again from the first when they run out."""
    return cases[index % len(cases)], index // len(cases)


def asked_tokens(case: Case) -> int | None:
    """Return how many tokens the prompt should have: as it was made to have, else estimated at four bytes each.

    None for the second turn of a conversation, whose prompt follows from an answer.
    """
    if case.follows or case.prompt_tokens is not None:
        return case.prompt_tokens
    return sum(len(str(message.get("content") or "").encode()) for message in case.messages) // _BYTES_PER_TOKEN


def asked_output(case: Case, config: Config) -> int | None:
    """Return the limit of an answer in tokens, which one of the suite ``text`` is asked to reach; None without one."""
    limit = {**case.options, **config.options}.get("num_predict")
    return limit if type(limit) is int and limit > 0 else None


def whole_conversations(cases: Sequence[Case], indices: Sequence[int], requests: int) -> Sequence[int]:
    """Add the other turn of each conversation to the indices: it is only sent as a whole, from its first turn."""
    if isinstance(cases, GeneratedCases):
        return indices
    wanted = set(indices)
    for index in indices:
        if case_of(cases, index)[0].follows:
            wanted.add(index - 1)
        elif index + 1 < requests and case_of(cases, index + 1)[0].follows:
            wanted.add(index + 1)
    return sorted(wanted)


def first_turns(cases: Sequence[Case], indices: Sequence[int]) -> int:
    """Count the indices that are not the second turn of a conversation."""
    if isinstance(cases, GeneratedCases):
        return len(indices)
    return sum(not case_of(cases, index)[0].follows for index in indices)


def requests_of(
    cases: Sequence[Case], config: Config, indices: Iterable[int], planned: int | None = None
) -> Iterator[Request]:
    """Yield the requests of a cell on demand; second turns are left out, since they follow from the first answers."""
    for index in indices:
        case, _ = case_of(cases, index)
        if not case.follows:
            yield request_of(case, config, index, planned)


def request_of(case: Case, config: Config, index: int, planned: int | None = None) -> Request:
    """Make the request of a case; the last of ``planned`` requests does not start a conversation.

    Options on the command line override the case's; each request samples with its own seed.
    """
    options = {"seed": config.seed + index, **case.options, **config.options}
    messages = case.messages
    if case.schema is not None and config.structured == "prompt":
        messages = with_schema(messages, case.schema)
    shared: dict[str, Any] = {
        "index": index,
        "model": config.model,
        "format": case.schema if config.structured not in ("prompt", "tools") else None,
        "dialect": None if config.structured in ("format", "prompt", "none") else config.structured,
        "body": config.body or {},
        "think": config.think,
        "options": options,
        "keep_alive": config.keep_alive,
        "limit_field": config.limit_field,
    }
    if config.endpoint == "generate":
        return Request(prompt=as_prompt(messages), **shared)
    results = case.tool_results if planned is None or index + 1 < planned else None
    tools = case.tools
    if case.schema is not None and config.structured == "tools":
        function = {"name": ANSWER, "description": "Give the answer.", "parameters": case.schema, "strict": True}
        tools = ({"type": "function", "function": function},)
    return Request(messages=messages, tools=tools, tool_results=results, **shared)


def warmup_requests(config: Config, count: int, loading: Mapping[str, Any]) -> list[Request]:
    """Make short requests unlike any case, so that they leave nothing useful in the server's prefix cache.

    ``loading`` are the options with which the cases have the model loaded: others would make the server load it again.
    """
    text, options = "Say hello.", {**config.options, **loading, "num_predict": _WARMUP_TOKENS}
    asked: dict[str, Any] = {"messages": ({"role": "user", "content": text},)}
    if config.endpoint == "generate":
        asked = {"prompt": text}
    shared: dict[str, Any] = {
        "model": config.model, "options": options, "keep_alive": config.keep_alive, "limit_field": config.limit_field,
    }  # fmt: skip
    return [Request(index=-1 - i, **asked, **shared) for i in range(count)]


def as_prompt(messages: Sequence[Mapping[str, Any]]) -> str:
    """Write a conversation as one text for /api/generate: a single message as it is, several with their roles."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def with_schema(messages: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Append the schema to the user's last message, unless it is there already."""
    task = f"{_SCHEMA_PROMPT}{json.dumps(schema, ensure_ascii=False)}"
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    at = users[-1] if users else len(messages) - 1
    asked = messages[at]
    if asked["content"].endswith(task):
        return tuple(messages)
    return (*messages[:at], {**asked, "content": f"{asked['content']}\n\n{task}"}, *messages[at + 1 :])
