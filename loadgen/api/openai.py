"""OpenAI's chat completions (/v1/chat/completions; a prompt goes to /v1/completions) as a ChatApi.

Many servers speak it, each with fields and habits of its own; what they are is said where they are read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from loadgen.api import conversation, sse
from loadgen.api.answer import REFUSED, CallPiece, Piece
from loadgen.types import ANSWER, NS, Request
from loadgen.wire.access import NO_ACCESS, Access
from loadgen.wire.connection import WireTimings
from loadgen.wire.framing import Framing, Sse

FRAMING: type[Framing] = Sse
ENDS_ONCE = False
PROMPTS = True
OPTIONS: Mapping[str, str] = {
    "num_predict": "max_tokens", "temperature": "temperature", "top_p": "top_p", "seed": "seed", "stop": "stop",
    "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty",
}  # fmt: skip
"""Ollama's name of an option -> its name here; what is missing has no counterpart."""
DIALECTS: Sequence[str] = ("strict", "structured_outputs", "json_schema", "tools")
REASONS: Mapping[str, str] = {
    "eos_token": "stop", "stop_sequence": "stop", "max_tokens": "length", "function_call": "tool_calls",
}  # fmt: skip
"""What some servers call a reason -> what most call it."""
_BROKEN_OFF = ("abort", "error", "cancelled")
EFFORT: Mapping[bool | str | None, str] = {True: "medium", False: "none"}
_MS = NS // 1000


def make_client(host: str | None, access: Access = NO_ACCESS) -> Any:
    """Make the official client over the stamping transport; it retries nothing and has no limits of its own."""
    from openai import AsyncOpenAI

    return sse.make_client(AsyncOpenAI, host, access)


preconnect = sse.preconnect
error_of = sse.error_of


async def call(client: Any, request: Request, timings: WireTimings) -> AsyncGenerator[Any]:
    """Have the client send the request; return the events of its answer."""
    path = "/chat/completions" if request.prompt is None else "/completions"
    return await sse.call(client, path, body(request), timings)


def body(request: Request, stream: bool = True) -> dict[str, Any]:
    """Return the body, without fields that are unset."""
    optional = {
        "messages": _messages(request.messages) if request.prompt is None else None,
        "prompt": request.prompt,
        "stream_options": {"include_usage": True} if stream else None,
        "tools": list(request.tools) or None,
        "tool_choice": {"type": "function", "function": {"name": ANSWER}} if request.dialect == "tools" else None,
        "reasoning_effort": EFFORT.get(request.think, request.think),
        **_constraint(request.format, request.dialect),
    }
    options = {OPTIONS[name]: value for name, value in request.options.items() if name in OPTIONS}
    said = {"model": request.model, "stream": stream} | {k: v for k, v in optional.items() if v is not None}
    return said | options | dict(request.body)


def _constraint(form: Mapping[str, Any] | str | None, dialect: str | None) -> dict[str, Any]:
    """Return the fields that ask for a schema, by default as OpenAI does."""
    if form is None:
        return {}
    if isinstance(form, str):
        return {"response_format": {"type": form}}
    match dialect:
        case "structured_outputs":  # vLLM
            return {"structured_outputs": {"json": form}}
        case "json_schema":  # llama.cpp
            return {"json_schema": form}
    strict = {"strict": True} if dialect == "strict" else {}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", **strict, "schema": form}}}


def _messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [_message(turn) for turn in conversation.turns(messages)]


def _message(turn: conversation.Turn) -> dict[str, Any]:
    content: Any = turn.text
    if turn.images:
        images = [{"type": "image_url", "image_url": {"url": conversation.data_url(image)}} for image in turn.images]
        content = [{"type": "text", "text": turn.text}, *images]
    message = {"role": turn.role, "content": content}
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_text}}
            for call in turn.calls
        ]
    if turn.result_of is not None:
        message["tool_call_id"] = turn.result_of
    return message


def piece(part: Mapping[str, Any]) -> Piece:
    """Read a chunk of a stream, or a whole answer."""
    facts = _facts(part) if "usage" in part or "timings" in part or "metrics" in part else {}
    choices = part.get("choices")
    if not choices:  # the usage, after the answer
        return Piece(facts=facts)
    choice = choices[0]
    said, finish = choice.get("delta") or choice.get("message") or choice, choice.get("finish_reason")
    if finish in _BROKEN_OFF:
        raise sse.StreamFailed({"message": f"the server broke the answer off: finish_reason {finish}"})
    if finish is not None:
        facts = facts | {"done_reason": REASONS.get(finish, finish) or None}
    text = said.get("content") or said.get("text") or ""
    if refusal := said.get("refusal"):
        text, facts = text or refusal, facts | {REFUSED: True}
    thinking = said.get("reasoning_content") or said.get("reasoning") or said.get("thinking") or ""
    if isinstance(text, list):
        text, thinking = _in_parts(text)
    calls = said.get("tool_calls")
    return Piece(text, thinking, _calls(calls) if calls else (), finish is not None, facts)


usual = sse.usual_with(piece)


def _in_parts(parts: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return the text and the thinking of content in parts, as Mistral sends where a model thinks."""
    thoughts = [inner["text"] for part in parts if part["type"] == "thinking" for inner in part["thinking"]]
    return "".join(part["text"] for part in parts if part["type"] == "text"), "".join(thoughts)


def _calls(calls: Sequence[Mapping[str, Any]]) -> list[CallPiece]:
    """Read tool calls: the arguments are JSON text in one or several pieces; some servers send them parsed."""
    pieces = []
    for call in calls:
        function = call.get("function") or {}
        pieces.append(
            CallPiece(function.get("name"), function.get("arguments") or "", call.get("index"), call.get("id"))
        )
    return pieces


def _facts(part: Mapping[str, Any]) -> dict[str, Any]:
    """Read counts (running ones replace each other) and the durations that llama.cpp and vLLM tell."""
    facts: dict[str, Any] = {}
    if usage := part.get("usage"):
        prompt, output = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
        facts = {
            "prompt_tokens": usage.get("prompt_tokens"),
            "output_tokens": usage.get("completion_tokens"),
            "cached_prompt_tokens": prompt.get("cached_tokens", usage.get("prompt_cache_hit_tokens")),  # DeepSeek
            "thinking_tokens": output.get("reasoning_tokens", usage.get("reasoning_tokens")),
        }
    if timings := part.get("timings"):
        facts |= durations(timings)
    if metrics := part.get("metrics"):  # vLLM with --enable-per-request-metrics
        first, queue = metrics.get("time_to_first_token_ms"), metrics.get("queue_time_ms")
        facts["prompt_eval_ns"] = None if first is None or queue is None else round((first - queue) * _MS)
        facts["eval_ns"] = _ns(metrics.get("generation_time_ms"))
    return {name: value for name, value in facts.items() if value is not None}


def durations(timings: Mapping[str, Any]) -> dict[str, Any]:
    """Read llama.cpp's durations of one request, in ms."""
    return {"prompt_eval_ns": _ns(timings.get("prompt_ms")), "eval_ns": _ns(timings.get("predicted_ms"))}


def _ns(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * _MS)
