"""Send one request through the official client and return its record: the only caller of chat() and generate().

Invariant: every way out of ``send`` returns exactly one RequestRecord; no retry, ever.
"""

from __future__ import annotations

import asyncio
import json
import re
import traceback
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import Any

import httpx
import ollama

from loadgen.types import NS, Request, RequestError, RequestRecord, Timeouts
from loadgen.wire.connection import BadWire, ConnectFailed, Exchange, TimedOut
from loadgen.wire.transport import EXCHANGE, KernelTransport, transport_for

_ABOUT_FORMAT = re.compile(r"(?<![a-z])(format|schema|grammar)s?(?![a-z])", re.IGNORECASE)
_ABOUT_TOOLS = re.compile(r"(?<![a-z])tools(?![a-z])", re.IGNORECASE)
_ABOUT_ELSE = re.compile(
    r"support thinking|context (length|window|size)|(out of|system|available|gpu|cuda) memory|image: unknown format",
    re.IGNORECASE,
)
"""Said of other troubles, whatever words stand beside; a refused schema may be quoted, so single words will not do."""
_JSON_TYPES = ("application/x-ndjson", "application/json")
_MESSAGE_LIMIT = 500


def make_client(host: str | None) -> ollama.AsyncClient:
    """The official client over the stamping transport, without its limit on connections."""
    url = str(ollama.AsyncClient(host, transport=KernelTransport(), trust_env=False)._client.base_url)
    # A gateway that compresses an answer gathers its chunks.
    plain = {"Accept-Encoding": "identity"}
    return ollama.AsyncClient(host, transport=transport_for(url), trust_env=False, headers=plain)


async def preconnect(client: ollama.AsyncClient, count: int, timeout_s: float) -> None:
    """Open ``count`` connections beforehand where our transport keeps them."""
    http = client._client
    if isinstance(http._transport, KernelTransport):
        await http._transport.preconnect(str(http.base_url), count, timeout_s)


async def send(
    client: ollama.AsyncClient, request: Request, timeouts: Timeouts, *, due_ns: int | None = None, worker: int = -1
) -> RequestRecord:
    """Send at ``due_ns`` (now, if None), read the streamed answer to its end, return what happened."""
    exchange = Exchange(timeouts, due_ns, request.tools)
    answer = _Answer()
    EXCHANGE.set(exchange)
    start_ns = monotonic_ns() if due_ns is None else due_ns
    error: RequestError | None = None
    try:
        async with asyncio.timeout_at(start_ns / NS + timeouts.total_s):
            parts = aiter(await _call(client, request))
            while (part := await anext(parts, None)) is not None:
                answer.observe(part, exchange)
        error = answer.check(exchange)
    except asyncio.CancelledError:
        error = RequestError("cancelled", "cancelled before the answer's end")
    except TimeoutError:
        error = RequestError("timeout", f"{_limit_reached(exchange, answer)}: nothing within {timeouts.total_s:g} s")
    except Exception as caught:
        error = _error(caught, request, answer, exchange)
        if error is None:
            raise
    return answer.record(request.index, worker, exchange, error)


async def _call(client: ollama.AsyncClient, request: Request) -> AsyncIterator[Any]:
    shared: dict[str, Any] = {
        "model": request.model,
        "stream": True,
        "format": request.format,
        "think": request.think,
        "options": dict(request.options) or None,
        "keep_alive": request.keep_alive,
    }
    if request.prompt is not None:
        answer: AsyncIterator[Any] = await client.generate(prompt=request.prompt, **shared)
    else:
        answer = await client.chat(messages=list(request.messages), **shared)
    return answer


@dataclass(slots=True)
class _Answer:
    """What has come so far."""

    chunk_ns: list[int] = field(default_factory=list)
    first_thinking_ns: int | None = None
    first_answer_ns: int | None = None
    first_tool_call_ns: int | None = None
    last_ns: int | None = None
    merged: int = 0
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: list[Mapping[str, Any]] = field(default_factory=list)
    parts: int = 0
    final: Any = None

    def observe(self, part: Any, exchange: Exchange) -> None:
        """Take in one line of the answer, received at ``exchange.stamp_ns``."""
        stamp = exchange.stamp_ns
        assert stamp is not None
        self.parts += 1
        message = part if (chat := getattr(part, "message", None)) is None else chat
        text = message.content if chat is not None else part.response
        thinking, calls = message.thinking, getattr(message, "tool_calls", None)
        if text or thinking or calls:
            if stamp == self.last_ns and exchange.late_reads and self.chunk_ns:
                self.merged += 1
            self.chunk_ns.append(stamp)
            if text:
                self.text.append(text)
                if self.first_answer_ns is None:
                    self.first_answer_ns = stamp
            if thinking:
                self.thinking.append(thinking)
                if self.first_thinking_ns is None:
                    self.first_thinking_ns = stamp
            if calls:
                self.calls += [{"name": c.function.name, "arguments": dict(c.function.arguments)} for c in calls]
                if self.first_tool_call_ns is None:
                    self.first_tool_call_ns = stamp
        self.last_ns = stamp
        if part.done:
            self.final = part

    def check(self, exchange: Exchange) -> RequestError | None:
        """The stream came to an end: was it an answer, and whole?"""
        if not exchange.content_type.startswith(_JSON_TYPES):
            return RequestError("protocol", f"content type {exchange.content_type!r} is no NDJSON", 200)
        if self.final is None:
            return RequestError("protocol", "the stream ended without a done message", 200)
        return None

    def record(self, index: int, worker: int, exchange: Exchange, error: RequestError | None) -> RequestRecord:
        final = self.final
        return RequestRecord(
            index=index,
            worker=worker,
            due_ns=exchange.sent_ns if exchange.due_ns is None else exchange.due_ns,
            sent_ns=exchange.sent_ns,
            connected_ns=exchange.connected_ns,
            chunk_ns=tuple(self.chunk_ns),
            first_thinking_ns=self.first_thinking_ns,
            first_answer_ns=self.first_answer_ns,
            first_tool_call_ns=self.first_tool_call_ns,
            end_ns=self.last_ns if error is None else monotonic_ns(),
            read_lag_max_ns=exchange.read_lag_max_ns if exchange.clock == "kernel" else None,
            merged_chunks=self.merged,
            clock=exchange.clock,
            output_text="".join(self.text),
            thinking_text="".join(self.thinking),
            tool_calls=tuple(self.calls),
            done_reason=getattr(final, "done_reason", None),
            prompt_tokens=getattr(final, "prompt_eval_count", None),
            output_tokens=getattr(final, "eval_count", None),
            load_ns=getattr(final, "load_duration", None),
            prompt_eval_ns=getattr(final, "prompt_eval_duration", None),
            eval_ns=getattr(final, "eval_duration", None),
            error=error,
        )


def _limit_reached(exchange: Exchange, answer: _Answer) -> str:
    """The most telling name where the limit for the whole request and a finer one ran out together."""
    limits = exchange.timeouts
    if exchange.connecting and limits.connect_s == limits.total_s:
        return "connect"
    if not answer.parts and limits.first_chunk_s == limits.total_s:
        return "first_chunk"
    return "total"


def _error(caught: Exception, request: Request, answer: _Answer, exchange: Exchange) -> RequestError | None:
    """The foreign exception as our error; None for one that is a bug of ours."""
    text = str(caught)[:_MESSAGE_LIMIT] or type(caught).__name__
    match caught:
        case ollama.ResponseError():
            return _server_error(caught.error, caught.status_code, request, answer)
        case TimedOut():
            return RequestError("timeout", text)
        case ConnectFailed() | ConnectionError() | httpx.ConnectError():
            return RequestError("connect", text)
        case BadWire() | httpx.HTTPError() | httpx.InvalidURL():
            return RequestError("protocol", text)
        case ValueError() | AttributeError() | TypeError() | RecursionError() if _in_client(caught):
            if exchange.sent_ns is None:
                return RequestError("protocol", f"not a request that the Ollama client sends: {text}")
            if (told := _told(caught)) is not None:
                return _server_error(*told, request, answer)
            if not exchange.content_type.startswith(_JSON_TYPES):
                text = f"content type {exchange.content_type!r} is no NDJSON"
            return RequestError("protocol", f"not NDJSON as Ollama sends it: {text}", 200)
    return None


def _server_error(error: Any, status: int, request: Request, answer: _Answer) -> RequestError:
    """An error the server told; refusing the schema or the tools is not a failure to arrive."""
    # Gateways put an object where Ollama has a text.
    whole = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    text = whole[:_MESSAGE_LIMIT]
    arrived_as = 200 if status == -1 else status
    if arrived_as in (200, 400, 500) and not answer.parts and _refuses(whole, request):
        return RequestError("rejected", text, arrived_as)
    return RequestError("stream" if status == -1 else "http", text, arrived_as)


def _refuses(text: str, request: Request) -> bool:
    """Whether the server says no to the schema or the tools that the request has."""
    about_format = request.format is not None and _ABOUT_FORMAT.search(text)
    about_tools = request.tools and _ABOUT_TOOLS.search(text)
    return bool(about_format or about_tools) and not _ABOUT_ELSE.search(text)


def _told(caught: BaseException) -> tuple[Any, int] | None:
    """The server's error and status where the official client's own exception breaks on an error that is no text."""
    for frame, _ in traceback.walk_tb(caught.__traceback__):
        if frame.f_code is ollama.ResponseError.__init__.__code__:
            return frame.f_locals["error"], frame.f_locals["status_code"]
    return None


def _in_client(caught: BaseException) -> bool:
    """Raised while the official client took a line apart, not by our own code above or below it."""
    inside = False
    for frame, _ in traceback.walk_tb(caught.__traceback__):
        module = frame.f_globals.get("__name__", "")
        inside = module.startswith("ollama.") or (inside and not module.startswith("loadgen."))
    return inside
