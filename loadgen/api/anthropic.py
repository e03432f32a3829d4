"""Anthropic's Messages (/v1/messages) as a ChatApi; llama.cpp, vLLM and Ollama speak it too."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from loadgen.api import conversation, sse
from loadgen.api.answer import CallPiece, Piece
from loadgen.api.reading import count_of, name_of, object_of, objects_of, text_of
from loadgen.types import ANSWER, Request
from loadgen.wire.access import NO_ACCESS, Access
from loadgen.wire.connection import WireTimings
from loadgen.wire.framing import Framing, Sse

FRAMING: type[Framing] = Sse
ENDS_ONCE = False
PROMPTS = False
HEADERS: Mapping[str, str] = {"anthropic-version": "2026-10-21"}
OPTIONS: Mapping[str, str] = {
    "num_predict": "max_tokens", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k",
    "stop": "stop_sequences",
}  # fmt: skip
"""Ollama's name of an option -> its name here; what is missing has no counterpart."""
DIALECTS: Sequence[str] = ("tools",)
DEFAULT_MAX_TOKENS = 4096
"""The API insists on a limit."""
MIN_THINKING_TOKENS = 1024
"""The API refuses less; a limit that leaves an answer nothing beside it is raised by as much."""
_ID = 100
"""A longer signature is more than the id or digest that other servers put there."""

preconnect = sse.preconnect
error_of = sse.error_of


def make_client(host: str | None, access: Access = NO_ACCESS) -> Any:
    """Make the official client over the stamping transport; it retries nothing and has no limits of its own."""
    from anthropic import AsyncAnthropic

    return sse.make_client(AsyncAnthropic, host, access)


async def call(client: Any, request: Request, timings: WireTimings) -> AsyncGenerator[Any]:
    """Have the client send the request; return the events of its answer."""
    return _counted_whole(await sse.call(client, "/v1/messages", body(request), timings))


async def _counted_whole(answer: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
    """Yield the events; the counts at an answer's end get those of its start that they leave out, as of a cache."""
    start: Mapping[str, Any] = {}
    async with aclosing(answer):
        async for event in answer:
            match event.get("type"):
                case "message_start":
                    start = object_of(object_of(event, "message"), "usage")
                case "message_delta" if told := object_of(event, "usage"):
                    new = {name: count for name, count in told.items() if count or start.get(name) is None}
                    event["usage"] = {**start, **new}
            yield event


def body(request: Request, stream: bool = True) -> dict[str, Any]:
    """Return the body, without fields that are unset."""
    options = {OPTIONS[name]: value for name, value in request.options.items() if name in OPTIONS}
    if isinstance(stop := options.get("stop_sequences"), str):
        options["stop_sequences"] = [stop]
    options.setdefault("max_tokens", DEFAULT_MAX_TOKENS)
    if request.think is True and options["max_tokens"] <= MIN_THINKING_TOKENS:  # the API wants more than that
        options["max_tokens"] += MIN_THINKING_TOKENS
    all_turns = list(conversation.turns(request.messages))
    optional = {
        "system": "\n\n".join(turn.text for turn in all_turns if turn.role == "system"),
        "tools": [_tool(tool["function"]) for tool in request.tools],
        "tool_choice": {"type": "tool", "name": ANSWER} if request.dialect == "tools" else None,
        **_thinking(request.think, options["max_tokens"]),
    }
    if isinstance(request.format, Mapping):
        effort = optional.get("output_config", {})
        optional["output_config"] = {**effort, "format": {"type": "json_schema", "schema": request.format}}
    said = {"model": request.model, "stream": stream, "messages": _messages(all_turns)}
    return conversation.with_body(said | {k: v for k, v in optional.items() if v} | options, request.body)


def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    strict = {"strict": True} if function.get("strict") else {}
    described = {"description": function["description"]} if "description" in function else {}
    schema = function.get("parameters") or {"type": "object"}
    return {"name": function["name"], **described, "input_schema": schema, **strict}


def _thinking(think: bool | str | None, max_tokens: int) -> dict[str, Any]:
    if isinstance(think, str):
        return {"output_config": {"effort": think}}
    if think is None:
        return {}
    if not think:
        return {"thinking": {"type": "disabled"}}
    return {"thinking": {"type": "enabled", "budget_tokens": max(MIN_THINKING_TOKENS, max_tokens // 2)}}


def _messages(all_turns: Sequence[conversation.Turn]) -> list[dict[str, Any]]:
    """Return the messages; results of tools are blocks of one user's message."""
    messages: list[dict[str, Any]] = []
    for turn in all_turns:
        if turn.role == "system":
            continue
        if turn.result_of is not None:
            block = {"type": "tool_result", "tool_use_id": turn.result_of, "content": turn.text}
            if messages and messages[-1]["role"] == "user" and isinstance(messages[-1]["content"], list):
                messages[-1]["content"].append(block)
            else:
                messages.append({"role": "user", "content": [block]})
            continue
        messages.append({"role": turn.role, "content": _content(turn)})
    return messages


def _content(turn: conversation.Turn) -> Any:
    if not turn.images and not turn.calls:
        return turn.text
    images = [
        {"type": "image", "source": {"type": "base64", "media_type": conversation.media_type(image), "data": image}}
        for image in turn.images
    ]
    said = [{"type": "text", "text": turn.text}] if turn.text else []
    calls = [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in turn.calls]
    return [*images, *said, *calls]


@sse.readable
def piece(part: Mapping[str, Any]) -> Piece:
    """Read one event."""
    match part.get("type"):
        case "content_block_delta":
            return _delta(object_of(part, "delta"), part.get("index"))
        case "content_block_start":
            return _block(object_of(part, "content_block"), part.get("index"))
        case "message_start":
            message = object_of(part, "message")
            usage = {**object_of(message, "usage"), "output_tokens": None}  # of an answer that has only begun
            return Piece(facts=_counts(usage) | _model(message))
        case "message_delta":
            reason = object_of(part, "delta").get("stop_reason")
            facts = _counts(object_of(part, "usage") or object_of(object_of(part, "delta"), "usage")) | _reason(reason)
            return Piece(done=reason is not None, facts=facts)
        case "message":
            return _whole(part)
        case "message_stop" | sse.DONE:
            return Piece(done=True, facts=_counts(object_of(part, "usage")))
    return Piece()


usual = sse.usual_with(piece)


def _whole(message: Mapping[str, Any]) -> Piece:
    """Read a whole answer: one that was not streamed, or what some servers end a stream with."""
    blocks = [_block(block, number) for number, block in enumerate(objects_of(message.get("content")))]
    reason = message.get("stop_reason")
    facts = {name: value for block in blocks for name, value in block.facts.items()}
    return Piece(
        "".join(block.text for block in blocks), "".join(block.thinking for block in blocks),
        [call for block in blocks for call in block.calls], reason is not None,
        facts | _counts(object_of(message, "usage")) | _model(message) | _reason(reason), whole=True,
    )  # fmt: skip


def _model(message: Mapping[str, Any]) -> dict[str, Any]:
    name = name_of(message.get("model"))
    return {} if name is None else {"answered_by": name}


def _reason(word: Any) -> dict[str, Any]:
    return {} if word is None else {"done_reason": word}


def _delta(delta: Mapping[str, Any], index: int | None) -> Piece:
    match delta.get("type"):
        case "text_delta":
            return Piece(text_of(delta.get("text")))
        case "thinking_delta":
            return Piece(thinking=text_of(delta.get("thinking")))
        case "signature_delta":
            return _signed(delta)
        case "input_json_delta":
            more = delta.get("partial_json")
            return Piece(calls=(CallPiece(None, more, index, goes_on=True),)) if more else Piece()
    return Piece()


def _block(block: Mapping[str, Any], index: int | None) -> Piece:
    """Read the start of a block: a call's input may already be whole."""
    match block.get("type"):
        case "tool_use":
            return Piece(calls=(CallPiece(block.get("name"), block.get("input") or "", index, block.get("id")),))
        case "text":
            return Piece(text_of(block.get("text")))
        case "thinking":
            return _signed(block)._replace(thinking=text_of(block.get("thinking")))
        case "redacted_thinking":
            return Piece(facts={"thinking_partial": True})
    return Piece()


def _signed(thought: Mapping[str, Any]) -> Piece:
    """Read the signature of a thought: a long one holds the thinking itself, of which the text is a summary."""
    return Piece(facts={"thinking_partial": True}) if len(thought.get("signature") or "") > _ID else Piece()


def _counts(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Read the counts: ``input_tokens`` is without the tokens that were read from a cache or written to one."""
    asked, cached, written = (
        count_of(usage.get(name)) for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )
    facts = {
        "prompt_tokens": None if asked is None else asked + (cached or 0) + (written or 0),
        "cached_prompt_tokens": None if asked is None else cached,
        "output_tokens": count_of(usage.get("output_tokens")),
        "thinking_tokens": count_of(object_of(usage, "output_tokens_details").get("thinking_tokens")),
    }
    return {name: value for name, value in facts.items() if value is not None}
