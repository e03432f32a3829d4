"""One request in Ollama's own protocol: the official client called, its answers read, its errors told as ours.

A ChatApi (``sending``); what is asked of the server beside the load is in ``ollama_server``. All that works round the
official client stands here: the request's timings and tools reach the transport past it, and its own exceptions are
taken apart where they hide what the server said.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from typing import Any

import httpx
import ollama

from loadgen.api.answer import CallPiece, Piece
from loadgen.types import Request, RequestError
from loadgen.wire.connection import WireTimings
from loadgen.wire.framing import Framing, Ndjson
from loadgen.wire.httpx_adapter import HttpxTransport

FRAMING: type[Framing] = Ndjson

_SENDING: ContextVar[tuple[WireTimings, Request]] = ContextVar("sending")
"""What the current task sends: the official client has no way to pass it down to its transport."""
_FACTS = {
    "done_reason": "done_reason",
    "prompt_tokens": "prompt_eval_count",
    "output_tokens": "eval_count",
    "load_ns": "load_duration",
    "prompt_eval_ns": "prompt_eval_duration",
    "eval_ns": "eval_duration",
}
"""Fields of the RequestRecord -> those of Ollama's last message."""


def make_client(host: str | None) -> ollama.AsyncClient:
    """The official client over the stamping transport, without its limit on connections."""
    transport = HttpxTransport(lambda: _SENDING.get()[0], FRAMING, _with_tools)
    # A gateway that compresses an answer gathers its chunks.
    plain = {"Accept-Encoding": "identity"}
    return ollama.AsyncClient(host, transport=transport, trust_env=False, headers=plain)


async def preconnect(client: ollama.AsyncClient, count: int, timeout_s: float) -> None:
    """Open ``count`` connections beforehand where our transport keeps them."""
    transport = client._client._transport
    assert isinstance(transport, HttpxTransport)
    await transport.preconnect(str(client._client.base_url), count, timeout_s)


async def call(client: ollama.AsyncClient, request: Request, timings: WireTimings) -> AsyncIterator[Any]:
    """Have the client send the request and yield its answer, part by part."""
    _SENDING.set((timings, request))
    words = body(request)
    words.pop("tools", None)  # the transport puts them in
    answer: AsyncIterator[Any] = await (client.chat if request.prompt is None else client.generate)(**words)
    return answer


def body(request: Request, stream: bool = True) -> dict[str, Any]:
    """The request in the words of /api/chat, or of /api/generate where it has a prompt; what it lacks is absent."""
    asked = {
        "messages": list(request.messages) if request.prompt is None else None,
        "prompt": request.prompt,
        "format": request.format,
        "tools": list(request.tools) or None,
        "think": request.think,
        "options": dict(request.options) or None,
        "keep_alive": request.keep_alive,
    }
    return {"model": request.model, "stream": stream} | {k: v for k, v in asked.items() if v is not None}


def _with_tools(written: bytes) -> bytes:
    """The body with the case's tools whole; the client drops what its own model of a tool does not know."""
    _, request = _SENDING.get()
    if not request.tools:
        return written
    tools = b'"tools":' + json.dumps(request.tools).encode()
    before, found, after = written.partition(b'"tools":[]')
    return before + tools + after if found else written[:-1] + b"," + tools + b"}"


def piece(part: Any) -> Piece:
    """Read one message of /api/chat or /api/generate, as the client gives it or as it came."""
    whole = _fields(part)
    message = whole.get("message")
    if message is None:
        message, text = whole, whole["response"]
    else:
        message = _fields(message)
        text = message.get("content")
    calls = message.get("tool_calls")
    said = Piece(text or "", message.get("thinking") or "", _calls(calls) if calls else ())
    if not whole.get("done"):
        return said
    return said._replace(done=True, facts={field: whole.get(name) for field, name in _FACTS.items()})


def _calls(calls: Any) -> list[CallPiece]:
    functions = [_fields(_fields(call)["function"]) for call in calls]
    return [CallPiece(function["name"], function["arguments"]) for function in functions]


def _fields(value: Any) -> Mapping[str, Any]:
    """A JSON object, or the fields of the client's model of one: its own ``get`` takes six times as long."""
    return value if isinstance(value, dict) else value.__dict__


def error_of(caught: Exception, timings: WireTimings) -> RequestError | None:
    """The client's exception as our error, its message whole; None for one that is a bug of ours."""
    text = str(caught) or type(caught).__name__
    match caught:
        case ollama.ResponseError():
            return _told(caught.error, caught.status_code)
        case httpx.ConnectError():
            return RequestError("connect", text)
        case httpx.HTTPError() | httpx.InvalidURL():
            return RequestError("protocol", text)
        case ValueError() | AttributeError() | TypeError() | RecursionError() if _in_client(caught):
            return _not_ollama(caught, text, timings)
    return None


def _told(error: Any, status: int) -> RequestError:
    """What the server told; -1 is the client's word for a line within an answer."""
    # Gateways put an object where Ollama has a text.
    text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    return RequestError("stream", text, 200) if status == -1 else RequestError("http", text, status)


def _not_ollama(caught: Exception, text: str, timings: WireTimings) -> RequestError:
    """The client broke on the request, or on an answer that is not as it expects them."""
    if timings.sent_ns is None:
        return RequestError("protocol", f"not a request that the Ollama client sends: {text}")
    if (hidden := _hidden(caught)) is not None:
        return _told(*hidden)
    if not timings.content_type.startswith(FRAMING.CONTENT_TYPES):
        text = f"content type {timings.content_type!r} is not {FRAMING.NAME}"
    return RequestError("protocol", f"not {FRAMING.NAME} as Ollama sends it: {text}", 200)


def _hidden(caught: BaseException) -> tuple[Any, int] | None:
    """The server's error and status where the client's own exception breaks on an error that is not a text."""
    for frame, _ in traceback.walk_tb(caught.__traceback__):
        if frame.f_code is ollama.ResponseError.__init__.__code__:
            return frame.f_locals["error"], frame.f_locals["status_code"]
    return None


def _in_client(caught: BaseException) -> bool:
    """Raised while the client took a line apart, not by our own code above or below it."""
    inside = False
    for frame, _ in traceback.walk_tb(caught.__traceback__):
        module = frame.f_globals.get("__name__", "")
        inside = module.startswith("ollama.") or (inside and not module.startswith("loadgen."))
    return inside
