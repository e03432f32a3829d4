"""Send one request through an API's official client and return its record: time, errors and record for all APIs.

``answer`` gathers what comes; the API's own module (``APIS``) says how it is called and what a chunk brings.
Invariant: every way out of ``send`` returns exactly one RequestRecord; no retry, ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib import import_module
from time import monotonic_ns
from typing import Any, Protocol, cast

from loadgen.api import APIS
from loadgen.api.answer import Answer, Piece, refusal
from loadgen.types import NS, Request, RequestError, RequestRecord, Timeouts
from loadgen.wire.connection import ConnectFailed, TimedOut, WireTimings
from loadgen.wire.framing import BadWire, Framing

_MESSAGE_LIMIT = 500


class ChatApi(Protocol):
    """What an API's module has, so that a request can be sent; its client has an ``async close()``."""

    FRAMING: type[Framing]

    def make_client(self, host: str | None) -> Any:
        """Make the official client over our transport, without a limit on connections."""

    async def preconnect(self, client: Any, count: int, timeout_s: float) -> None:
        """Open ``count`` connections beforehand where our transport keeps them."""

    async def call(self, client: Any, request: Request, timings: WireTimings) -> AsyncIterator[Any]:
        """Have the client send the request and yield its answer, part by part."""

    def piece(self, part: Any) -> Piece:
        """Read what one part of an answer brings."""

    def error_of(self, caught: Exception, timings: WireTimings) -> RequestError | None:
        """The client's exception as our error, its message whole; None for one that is a bug of ours.

        What the server told is of kind ``http``, or ``stream`` after status 200.
        """


def chat_api(name: str) -> ChatApi:
    """The API of that name."""
    return cast("ChatApi", import_module(APIS[name][0]))


async def send(
    api: ChatApi, client: Any, request: Request, timeouts: Timeouts, *, due_ns: int | None = None, worker: int = -1
) -> RequestRecord:
    """Send at ``due_ns`` (now, if None), read the streamed answer to its end, return what happened."""
    timings = WireTimings(timeouts, due_ns)
    answer = Answer()
    start_ns = monotonic_ns() if due_ns is None else due_ns
    error: RequestError | None = None
    try:
        async with asyncio.timeout_at(start_ns / NS + timeouts.total_s):
            async for part in await api.call(client, request, timings):
                assert timings.stamp_ns is not None
                answer.add(api.piece(part), timings.stamp_ns, timings.late_reads)
        error = _not_whole(api, answer, timings)
    except asyncio.CancelledError:
        error = RequestError("cancelled", "cancelled before the answer's end")
    except TimeoutError:
        error = RequestError("timeout", f"{_limit_reached(timings, answer)}: nothing within {timeouts.total_s:g} s")
    except Exception as caught:
        error = _error(api, caught, request, answer, timings)
        if error is None:
            raise
    return RequestRecord(
        index=request.index,
        worker=worker,
        due_ns=timings.sent_ns if due_ns is None else due_ns,
        sent_ns=timings.sent_ns,
        connected_ns=timings.connected_ns,
        end_ns=answer.last_ns if error is None else monotonic_ns(),
        read_lag_max_ns=timings.read_lag_max_ns if timings.clock == "kernel" else None,
        clock=timings.clock,
        error=error,
        **answer.fields(),
    )


def _not_whole(api: ChatApi, answer: Answer, timings: WireTimings) -> RequestError | None:
    """The stream came to an end: was it an answer, and whole?"""
    if not timings.content_type.startswith(api.FRAMING.CONTENT_TYPES):
        return RequestError("protocol", f"content type {timings.content_type!r} is not {api.FRAMING.NAME}", 200)
    if not answer.done:
        return RequestError("protocol", "the stream ended without a done message", 200)
    return None


def _limit_reached(timings: WireTimings, answer: Answer) -> str:
    """The most telling name where the limit for the whole request and a finer one ran out together."""
    limits = timings.timeouts
    if timings.connecting and limits.connect_s == limits.total_s:
        return "connect"
    if answer.last_ns is None and limits.first_chunk_s == limits.total_s:
        return "first_chunk"
    return "total"


def _error(
    api: ChatApi, caught: Exception, request: Request, answer: Answer, timings: WireTimings
) -> RequestError | None:
    """The foreign exception as our error; None for one that is a bug of ours."""
    match caught:
        case TimedOut():
            error: RequestError | None = RequestError("timeout", str(caught))
        case ConnectFailed() | ConnectionError():
            error = RequestError("connect", str(caught) or type(caught).__name__)
        case BadWire():
            error = RequestError("protocol", str(caught))
        case _:
            error = api.error_of(caught, timings)
    if error is None:
        return None
    if answer.last_ns is None and _refuses(error, request):
        error = replace(error, kind="rejected")
    return replace(error, message=error.message[:_MESSAGE_LIMIT])


def _refuses(error: RequestError, request: Request) -> bool:
    """Whether the server says no to the schema or the tools that the request has: not a failure to arrive."""
    if error.kind not in ("http", "stream") or error.status not in (200, 400, 500):
        return False
    refused = refusal(error.message)
    return ("format" in refused and request.format is not None) or ("tools" in refused and bool(request.tools))
