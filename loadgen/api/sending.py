"""Sending one request over any API's official client: each ``send`` returns one RequestRecord and never retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from importlib import import_module
from time import monotonic_ns, time
from typing import Any, Protocol, cast

from loadgen.api import APIS
from loadgen.api.answer import Answer, Piece, broke_off
from loadgen.api.blame import loops, model_error
from loadgen.api.rate_limits import TOO_MANY, seconds_of
from loadgen.api.server import REFUSED
from loadgen.types import NS, ErrorKind, Request, RequestError, RequestRecord, Timeouts
from loadgen.wire.access import NO_ACCESS, Access
from loadgen.wire.connection import ConnectFailed, Take, TimedOut, WireTimings
from loadgen.wire.framing import BadWire, Framing, NoAnswer

_MESSAGE_LIMIT = 500
NOT_DONE = "the stream ended without a done message"


class ChatApi(Protocol):
    """What an API's module provides to send requests; its client has an ``async close()``."""

    FRAMING: type[Framing]
    ENDS_ONCE: bool
    """Whether a second last message is wrong."""
    OPTIONS: Mapping[str, str]
    """Ollama's name of an option -> the API's own, for those that it has."""
    PROMPTS: bool
    """Whether it takes a prompt outside a chat."""
    HEADERS: Mapping[str, str]
    """What its official client adds to each request: questions beside the load need it too."""
    DIALECTS: Sequence[str]
    """Ways to ask for a schema besides its own."""

    def make_client(self, host: str | None, access: Access = ...) -> Any:
        """Make the official client over our transport, without a limit on connections."""

    async def preconnect(self, client: Any, count: int, timeout_s: float) -> None:
        """Open ``count`` connections in advance, unless a proxy is used."""

    async def call(self, client: Any, request: Request, timings: WireTimings) -> AsyncGenerator[Any]:
        """Have the client send the request and yield its answer, part by part."""

    def body(self, request: Request, stream: bool = ...) -> dict[str, Any]:
        """Return the body of a request, without fields that are unset."""

    def piece(self, part: Any) -> Piece:
        """Read one part of an answer."""

    def usual(self, chunk: bytes) -> Piece | None:
        """Read a chunk of the form that nearly all have as ``piece`` reads what the client makes of it.

        It need not say who answers, as the first one does, which ``piece`` reads.
        None for any other, which the client is then to read.
        """

    def error_of(self, caught: Exception, timings: WireTimings) -> RequestError | None:
        """Convert the client's exception to our error; None if it is a bug of ours.

        An error that the server sent is of kind ``http``, or ``stream`` after status 200.
        """


def chat_api(name: str) -> ChatApi:
    """Import the API of that name."""
    return cast("ChatApi", import_module(APIS[name][0]))


async def send(
    api: ChatApi, client: Any, request: Request, timeouts: Timeouts, *, due_ns: int | None = None, worker: int = -1,
    access: Access = NO_ACCESS,
) -> RequestRecord:  # fmt: skip
    """Send at ``due_ns`` (None: now), read the streamed answer to its end, and return the record."""
    timings = WireTimings(timeouts, due_ns)
    answer = Answer(ends_once=api.ENDS_ONCE)
    timings.take = _taker(api, answer)
    start_ns = monotonic_ns() if due_ns is None else due_ns
    error: RequestError | None = None
    try:
        async with asyncio.timeout_at(start_ns / NS + timeouts.total_s):
            async with aclosing(await api.call(client, request, timings)) as parts:
                async for part in parts:
                    assert timings.stamp_ns is not None
                    answer.add(api.piece(part), timings.stamp_ns, timings.early_ns, timings.late)
        error = _incomplete(api, answer, timings)
    except asyncio.CancelledError:
        error = RequestError("cancelled", "cancelled before the answer's end")
    except TimeoutError:
        error = RequestError("timeout", _timed_out(timings, answer))
    except Exception as caught:
        error = _error(api, caught, timings)
        if error is None:
            raise
    impossible = answer.drop_impossible()
    if error is None and impossible is not None:
        error = RequestError("protocol", impossible, 200)
    if error is not None:
        error = _told(error, access, timings.retry_after, request, answer)
    return RequestRecord(
        index=request.index,
        worker=worker,
        due_ns=timings.sent_ns if due_ns is None else due_ns,
        sent_ns=timings.sent_ns,
        connected_ns=timings.connected_ns,
        end_ns=answer.last_ns if error is None else monotonic_ns(),
        held_ns=_held_ns(answer, timings) if error is None else None,
        sent_off_ns=timings.sent_off_ns,
        processor_wait_ns=timings.processor_wait_ns,
        resent_segments=timings.resent,
        out_of_order_segments=timings.out_of_order,
        read_lag_max_ns=None if timings.clock in (None, "read") else timings.read_lag_max_ns,
        clock=timings.clock,
        error=error,
        **answer.fields(timings.sent_ns),
    )


def _taker(api: ChatApi, answer: Answer) -> Take:
    """Make a function that adds a chunk of the usual form to the answer as it is read, past the client's generators.

    The first one goes their way, for it may say who answers.
    """
    usual, add = api.usual, answer.add

    def take(chunk: bytes, stamp_ns: int, early_ns: int | None, late: bool) -> bool:
        piece = usual(chunk) if answer.chunk_ns else None
        if piece is None:
            return False
        add(piece, stamp_ns, early_ns, late)
        return True

    return take


def _incomplete(api: ChatApi, answer: Answer, timings: WireTimings) -> RequestError | None:
    """Return the error of a stream that ended, if it is not a complete answer."""
    if not timings.content_type.lower().startswith(api.FRAMING.CONTENT_TYPES):
        return RequestError("protocol", f"content type {timings.content_type!r} is not {api.FRAMING.NAME}", 200)
    if answer.overrun:
        return RequestError("protocol", "the stream went on after its done message", 200)
    reason = answer.facts.get("done_reason")
    if answer.done and broke_off(reason, said=bool(answer.chunk_ns)):
        return RequestError("stream", f"the server broke the answer off: {reason}", 200)
    if answer.done and (answer.chunk_ns or "done_reason" in answer.facts):
        return None
    # A body that is cut off is an error of the wire; what comes here has ended as HTTP wants it.
    if loops(answer.text or answer.thinking):
        return RequestError("truncated", f"{NOT_DONE}, after one token over and over", 200)
    return RequestError("protocol", NOT_DONE, 200)


def _held_ns(answer: Answer, timings: WireTimings) -> int | None:
    """Return how long after the last message the server ended the body: its client could send nothing before."""
    if timings.ended_ns is None or answer.last_ns is None:
        return None
    return max(0, timings.ended_ns - answer.last_ns)


def _timed_out(timings: WireTimings, answer: Answer) -> str:
    """Name the most specific limit, if one ran out together with that for the whole request."""
    limits, limit = timings.timeouts, "total"
    if answer.last_ns is not None:
        return f"total: the answer did not end within {limits.total_s:g} s"
    if timings.connecting and limits.connect_s == limits.total_s:
        limit = "connect"
    elif limits.first_chunk_s == limits.total_s:
        limit = "first_chunk"
    return f"{limit}: nothing within {limits.total_s:g} s"


def _error(api: ChatApi, caught: Exception, timings: WireTimings) -> RequestError | None:
    """Convert an exception to our error; None if it is a bug of ours."""
    match caught:
        case TimedOut():
            return RequestError("timeout", str(caught))
        case ConnectFailed() | ConnectionError():
            return RequestError("connect", str(caught) or type(caught).__name__)
        case BadWire():
            return RequestError("protocol", str(caught))
        case NoAnswer():
            return RequestError("http", str(caught), caught.status)
    return api.error_of(caught, timings)


def _told(error: RequestError, access: Access, retry_after: str, request: Request, answer: Answer) -> RequestError:
    """Return the error as it is kept: cut, without secrets that it repeats, and of the kind of whoever failed.

    A status that lets nobody in has what to do about it. Where the server says how long to wait, so does the error.
    """
    message = access.masked(error.message)[:_MESSAGE_LIMIT]  # judged as it is kept, so that it can be judged again
    error = replace(error, message=message, kind=_owner(replace(error, message=message), request, answer))
    if error.kind == "http" and error.status in REFUSED:
        message = f"{access.refusal(error.status)} ({message})" if message else access.refusal(error.status)
    wait_s = seconds_of(retry_after, time()) if error.kind in ("http", "rate_limited") else None
    return replace(error, message=message + told_wait(wait_s), retry_after_s=wait_s)


def told_wait(wait_s: float | None) -> str:
    """Return what is added to a message if the server says how long to wait."""
    return "" if wait_s is None else f" (Retry-After: {wait_s:g} s)"


def _owner(error: RequestError, request: Request, answer: Answer) -> ErrorKind:
    """Return the kind of an error by whose failure it is: the model's, or the server's."""
    if error.kind not in ("http", "stream"):
        return error.kind
    owner = model_error(
        error.message, error.status, model=request.model, format=request.format is not None, tools=bool(request.tools),
        began=bool(answer.chunk_ns), replayed=any(message.get("tool_calls") for message in request.messages),
    )  # fmt: skip
    return owner or ("rate_limited" if error.kind == "http" and error.status == TOO_MANY else error.kind)
