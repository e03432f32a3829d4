"""httpx transports for the official client that stamp what they receive.

Invariant: ``Exchange.sent_ns`` is the instant at which nothing but connecting and sending was left
to do, so that neither the client library's own work nor the wait for the due time is in a latency.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextvars import ContextVar
from functools import partial
from time import monotonic_ns
from typing import Any

import httpx

from loadgen.types import NS
from loadgen.wire.connection import BadWire, ConnectFailed, Connection, Exchange, Lines, TimedOut

EXCHANGE: ContextVar[Exchange] = ContextVar("exchange")
"""The request being sent by the current task: the official client has no way to pass it down."""


def transport_for(url: str) -> httpx.AsyncBaseTransport:
    """The stamping transport, or, for TLS and behind a proxy, httpx's own with stamps at the read."""
    parts = httpx.URL(url)
    proxy = None if urllib.request.proxy_bypass(parts.host) else urllib.request.getproxies().get(parts.scheme)
    if parts.scheme == "http" and proxy is None:
        return KernelTransport()
    if proxy is not None and "://" not in proxy:
        proxy = f"http://{proxy}"
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return ReadTransport(httpx.AsyncHTTPTransport(limits=limits, proxy=proxy))


async def until(instant_ns: int) -> None:
    """Return at the instant, within tens of microseconds: timers of the event loop are 1 ms coarse."""
    while (left := instant_ns - monotonic_ns()) > 0:  # noqa: ASYNC110 - time is the event
        await asyncio.sleep(left / NS - 0.0011)  # below zero it only lets others run


class KernelTransport(httpx.AsyncBaseTransport):
    """Plain TCP with kernel receive stamps, a persistent reader per connection and no limit on connections."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[Connection]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = EXCHANGE.get()
        address = (request.url.host, request.url.port or 80)
        data = _bytes(_with_tools(request, exchange))
        if exchange.due_ns is not None:
            await until(exchange.due_ns)
        exchange.sent_ns = monotonic_ns()
        connection = self._take(address)
        if connection is None:
            exchange.connecting = True
            connection = await Connection.open(address, exchange.timeouts.connect_s)
            exchange.connected_ns = monotonic_ns()
            exchange.connecting = False
        try:
            await connection.request(data, exchange)
        except BaseException:
            connection.close()
            raise
        return httpx.Response(
            connection.status, headers=connection.headers, stream=_Body(connection, self._idle.setdefault(address, []))
        )

    async def preconnect(self, url: str, count: int, timeout_s: float) -> None:
        """Open connections beforehand, so that no request of the load pays; failures are left to the requests."""
        parts = httpx.URL(url)
        address = (parts.host, parts.port or 80)
        idle = self._idle.setdefault(address, [])
        for _ in range(count - len(idle)):
            try:
                idle.append(await Connection.open(address, timeout_s))
            except (ConnectFailed, TimedOut):
                return

    def _take(self, address: tuple[str, int]) -> Connection | None:
        idle = self._idle.get(address, [])
        while idle:
            connection = idle.pop()
            if connection.usable():
                return connection
        return None

    async def aclose(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.close()


class _Body(httpx.AsyncByteStream):
    def __init__(self, connection: Connection, idle: list[Connection]) -> None:
        self._connection = connection
        self._idle = idle

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._connection.pieces()

    async def aclose(self) -> None:
        self._connection.release(self._idle)


def _with_tools(request: httpx.Request, exchange: Exchange) -> httpx.Request:
    """The request with the case's tools whole; the official client wrote an empty list in their place."""
    if not exchange.tools:
        return request
    tools = b'"tools":' + json.dumps(exchange.tools).encode()
    before, found, after = request.content.partition(b'"tools":[]')
    content = before + tools + after if found else request.content[:-1] + b"," + tools + b"}"
    headers = {**request.headers, "content-length": str(len(content))}
    return httpx.Request(request.method, request.url, headers=headers, content=content, extensions=request.extensions)


def _bytes(request: httpx.Request) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % header for header in request.headers.raw]
    return b"\r\n".join(lines) + b"\r\n\r\n" + request.content


class ReadTransport(httpx.AsyncBaseTransport):
    """Another transport with stamps taken when the client reads; for TLS and proxies."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = EXCHANGE.get()
        request = _with_tools(request, exchange)
        if exchange.due_ns is not None:
            await until(exchange.due_ns)
        exchange.sent_ns = monotonic_ns()
        exchange.clock = "read"
        limits = exchange.timeouts
        request.extensions["trace"] = partial(_note_connection, exchange)
        request.extensions["timeout"] = {"connect": limits.connect_s}
        try:
            response = await _within("first_chunk", limits.first_chunk_s, self._inner.handle_async_request(request))
        except httpx.ConnectTimeout:
            raise TimedOut("connect", limits.connect_s) from None
        except (httpx.NetworkError, httpx.ProxyError) as error:
            raise ConnectFailed(str(error) or "the connection was lost before an answer came") from None
        except httpx.TransportError as error:
            nothing_came = "disconnected without" in str(error)
            raise (ConnectFailed if nothing_came else BadWire)(str(error) or type(error).__name__) from None
        exchange.content_type = response.headers.get("content-type", "")
        assert isinstance(response.stream, httpx.AsyncByteStream)
        lines = Lines() if response.status_code == 200 else None
        return httpx.Response(
            response.status_code, headers=response.headers, stream=_ReadBody(response.stream, exchange, lines)
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _note_connection(exchange: Exchange, event: str, _info: Any) -> None:
    """httpcore's own account of what it does: a connection is open when TCP's is, and with TLS when that is agreed."""
    if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
        exchange.connected_ns = monotonic_ns()


class _ReadBody(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, exchange: Exchange, lines: Lines | None) -> None:
        self._inner = inner
        self._exchange = exchange
        self._lines = lines

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = aiter(self._inner)
        limit = self._exchange.timeouts.between_chunks_s
        while True:
            try:
                piece = await _within("between_chunks", limit, anext(pieces, None))
            except httpx.TransportError as error:
                raise BadWire(str(error) or type(error).__name__) from None
            if piece is None:
                return
            self._exchange.stamp_ns = monotonic_ns()
            if self._lines is not None:
                self._lines.check(piece)
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _within(limit: str, seconds: float, work: Any) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise TimedOut(limit, seconds) from None
