"""OpenAI's Responses (/v1/responses) as a ChatApi."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from loadgen.api import conversation, openai, sse
from loadgen.api.answer import REFUSED, CallPiece, Piece
from loadgen.api.reading import count_of, name_of, object_of, objects_of, text_of
from loadgen.types import ANSWER, Request
from loadgen.wire.connection import WireTimings
from loadgen.wire.framing import Framing, Sse

FRAMING: type[Framing] = Sse
ENDS_ONCE = False
PROMPTS = False
HEADERS: Mapping[str, str] = {}
OPTIONS: Mapping[str, str] = {
    "num_predict": "max_output_tokens", "temperature": "temperature", "top_p": "top_p",
}  # fmt: skip
"""Ollama's name of an option -> its name here; what is missing has no counterpart."""
DIALECTS: Sequence[str] = ("strict", "tools")
_LENGTH = "max_output_tokens"
_GIVEN_UP = ("response.failed", "response.cancelled")
_THOUGHTS = ("response.reasoning_text.delta", "response.reasoning.delta")
_SUMMARIES = ("response.reasoning_summary_text.delta", "response.reasoning_summary.delta")

make_client = openai.make_client
preconnect = sse.preconnect
error_of = sse.error_of


async def call(client: Any, request: Request, timings: WireTimings) -> AsyncGenerator[Any]:
    """Have the client send the request; return the events of its answer."""
    said = body(request)
    return _told_alike(await sse.call(client, "/responses", said, timings), said.get(_LENGTH))


async def _told_alike(answer: AsyncGenerator[Any], limit: int | None) -> AsyncGenerator[Any]:
    """Yield the events; an answer as long as its limit was cut, which llama.cpp calls completed."""
    async with aclosing(answer):
        async for event in answer:
            if limit is not None and event.get("type") == "response.completed":
                response = object_of(event, "response")
                if (count_of(object_of(response, "usage").get("output_tokens")) or 0) >= limit:
                    event["response"] = {**response, "incomplete_details": {"reason": _LENGTH}}
            yield event


def body(request: Request, stream: bool = True) -> dict[str, Any]:
    """Return the body, without fields that are unset; the server is asked to store nothing."""
    optional = {
        "tools": [{"type": "function", **tool["function"]} for tool in request.tools] or None,
        "tool_choice": {"type": "function", "name": ANSWER} if request.dialect == "tools" else None,
        "reasoning": None if request.think is None else {"effort": openai.EFFORT.get(request.think, request.think)},
        "text": _constraint(request),
    }
    options = {OPTIONS[name]: value for name, value in request.options.items() if name in OPTIONS}
    said = {"model": request.model, "stream": stream, "store": False, "input": _items(request.messages)}
    return conversation.with_body(said | {k: v for k, v in optional.items() if v is not None} | options, request.body)


def _constraint(request: Request) -> dict[str, Any] | None:
    if request.format is None:
        return None
    if isinstance(request.format, str):
        return {"format": {"type": request.format}}
    strict = {"strict": True} if request.dialect == "strict" else {}
    return {"format": {"type": "json_schema", "name": "answer", "schema": request.format, **strict}}


def _items(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for turn in conversation.turns(messages):
        if turn.result_of is not None:
            items.append({"type": "function_call_output", "call_id": turn.result_of, "output": turn.text})
            continue
        if turn.text or turn.images or not turn.calls:
            items.append({"role": turn.role, "content": _content(turn)})
        items += [
            {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments_text}
            for call in turn.calls
        ]
    return items


def _content(turn: conversation.Turn) -> Any:
    if not turn.images:
        return turn.text
    images = [{"type": "input_image", "image_url": conversation.data_url(image)} for image in turn.images]
    return [{"type": "input_text", "text": turn.text}, *images]


@sse.readable
def piece(part: Mapping[str, Any]) -> Piece:
    """Read one event; some servers send only the ``done`` events, with what deltas should have brought before."""
    match part.get("type"):
        case "response.output_text.delta":
            return Piece(text_of(part.get("delta")))
        case "response.refusal.delta":
            return Piece(text_of(part.get("delta")), facts={REFUSED: True})
        case kind if kind in _THOUGHTS:
            return Piece(thinking=text_of(part.get("delta")))
        case kind if kind in _SUMMARIES:
            return Piece(thinking=text_of(part.get("delta")), facts={"thinking_partial": True})
        case "response.output_item.added" | "response.output_item.done" as kind:
            item = object_of(part, "item")
            return _call(part, item, _id(item), kind) if item.get("type") == "function_call" else Piece()
        case "response.function_call_arguments.delta":
            return Piece(calls=(CallPiece(None, part["delta"], part.get("output_index"), part.get("item_id")),))
        case "response.function_call_arguments.done" as kind:
            return _call(part, part, part.get("item_id"), kind)
        case "response.output_text.done":
            return Piece(text_of(part.get("text")), whole=True)
        case "response.refusal.done":
            return Piece(text_of(part.get("refusal")), facts={REFUSED: True}, whole=True)
        case "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" as end:
            return _end(part, end)
        case "response.done":
            return _end(part, f"response.{object_of(part, 'response').get('status') or 'completed'}")
        case sse.DONE:
            return Piece(done=True)
        case None if part.get("object") == "response":
            return _whole(part)
    return Piece()


usual = sse.usual_with(piece)


def _call(part: Mapping[str, Any], said: Mapping[str, Any], call_id: str | None, kind: str) -> Piece:
    """Read the call in an event of that kind; a ``done`` event repeats it whole."""
    call = CallPiece(said.get("name"), said.get("arguments") or "", part.get("output_index"), call_id)
    return Piece(calls=(call,), whole=kind.endswith(".done"))


def _whole(response: Mapping[str, Any]) -> Piece:
    """Read an answer that was not streamed."""
    end = _end({"response": response}, f"response.{response.get('status')}")
    text, thinking, calls = _said(objects_of(response.get("output")))
    return Piece(text, thinking, calls, True, end.facts)


def _said(items: Sequence[Mapping[str, Any]]) -> tuple[str, str, Sequence[CallPiece]]:
    """Return the text, the thinking and the calls of an answer's items."""
    contents = [part for item in items for part in _parts(item, "content") if item.get("type") != "function_call"]
    said = [part.get("text") or part.get("refusal") or "" for part in contents if part.get("type") != "reasoning_text"]
    summaries = [part for item in items if item.get("type") == "reasoning" for part in _parts(item, "summary")]
    kinds = ("reasoning_text", "summary_text")
    thoughts = [part.get("text") or "" for part in (*contents, *summaries) if part.get("type") in kinds]
    calls = [
        CallPiece(item.get("name"), item.get("arguments") or "", number, _id(item))
        for number, item in enumerate(items)
        if item.get("type") == "function_call"
    ]
    return "".join(said), "".join(thoughts), calls


def _parts(item: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    found = item.get(name)
    return [part for part in found if isinstance(part, dict)] if isinstance(found, list) else ()


def _id(item: Mapping[str, Any]) -> str | None:
    """Return the id that the deltas of a call refer to."""
    return item.get("id") or item.get("call_id")


def _end(part: Mapping[str, Any], end: str) -> Piece:
    """Read the last event: why the answer ended, and its counts."""
    response = object_of(part, "response") if end in _GIVEN_UP else part["response"]
    if end in _GIVEN_UP or response.get("status") in ("failed", "cancelled"):
        given_up = response.get("status") or end.partition(".")[2]
        raise sse.StreamFailed({"error": response.get("error") or f"the server ended the answer as {given_up}"})
    usage, output = object_of(response, "usage"), objects_of(response.get("output"))
    why = object_of(response, "incomplete_details").get("reason")
    if why is None and "incomplete" in (end.partition(".")[2], response.get("status")):
        why = "incomplete"
    called = any(item.get("type") == "function_call" for item in output)
    facts = {
        "done_reason": why or ("tool_calls" if called else "stop"),
        **openai.counts(
            usage.get("input_tokens"), usage.get("output_tokens"),
            object_of(usage, "output_tokens_details").get("reasoning_tokens"), usage,
        ),
        "cached_prompt_tokens": count_of(object_of(usage, "input_tokens_details").get("cached_tokens")),
        **openai.durations(object_of(part, "timings")),
        "answered_by": name_of(response.get("model")),
    }  # fmt: skip
    text, thinking, calls = _said(output)
    told = {name: value for name, value in facts.items() if value is not None}
    return Piece(text, thinking, calls, True, told, whole=True)
