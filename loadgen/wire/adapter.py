"""A transport for official clients of httpx or a library like it: HTTP over our own connections, proxies over its own.

The library's own connections are stamped when they are read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import monotonic_ns
from typing import Any

from loadgen.wire.access import NO_ACCESS, Access, redirect_target, unix_path
from loadgen.wire.connection import HTTP_OK, ConnectFailed, TimedOut, WireTimings
from loadgen.wire.framing import BadWire, Framing, NoAnswer
from loadgen.wire.stamps import TimestampingSelector
from loadgen.wire.tls import no_trust, tls_problem
from loadgen.wire.transport import Address, Connections, message, proxy_for, wait_until_due

_PLAIN = "identity"
"""The content encoding that is none."""
_REDIRECTS, _ERRORS = 300, 400
"""The first status of each."""


class ChunkedBody:
    """A body that yields each chunk with its stamp; a subclass is also the library's ``AsyncByteStream``."""

    def __init__(self, chunks: AsyncIterator[bytes], close: Callable[[], Awaitable[None]]) -> None:
        self._chunks = chunks
        self._close = close

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def lines(self) -> AsyncIterator[str]:
        """Yield each chunk as text: the library takes five generators, and also ends lines at U+0085."""
        try:
            async for chunk in self._chunks:
                yield chunk.decode()
        except UnicodeDecodeError as error:
            raise BadWire(f"the answer is not UTF-8: {error.reason}") from None

    async def aclose(self) -> None:
        await self._close()


class Adapter:
    """Stamps what it receives in the ``timings()`` of the current task's request; ``rewrite`` changes its body.

    With ``address`` the address of a unix socket, every request goes there. A subclass for each library names it.
    """

    library: Any
    """The module: httpx, or one with its names."""
    response: Callable[..., Any]
    """A ``Response`` of the library, of a status, headers and a ``ChunkedBody``."""
    body: type[ChunkedBody]

    def __init__(
        self, timings: Callable[[], WireTimings], framing: Callable[[], Framing], rewrite: Callable[[bytes], bytes],
        address: str | None = None, access: Access = NO_ACCESS,
    ) -> None:  # fmt: skip
        self._timings = timings
        self._framing = framing
        self._rewrite = rewrite
        self._socket = unix_path(address or "")
        self._access = access
        self._pools: dict[str, Connections] = {}
        """By scheme."""
        self._httpx_transports: dict[tuple[str, str], Any] = {}
        """By scheme and host: httpx's own transport where there is a proxy, else None."""

    async def handle_async_request(self, request: Any) -> Any:
        timings = self._timings()
        if (body := self._rewrite(request.content)) != request.content:
            request = self._with_body(request, body)
        inner = self._httpx_transport(request.url)
        if inner is not None:
            return await self._through(inner, request, timings, self._framing())
        data = message(request.method, request.url.raw_path, request.headers.raw, body)
        pool = self._pool(request.url)
        connection = await pool.send(self._address(request.url), data, timings, self._framing)
        answer = self.body(connection.chunks(), partial(pool.give_back, connection))
        return await _checked(self.response(connection.status, connection.headers, answer), request.url)

    async def preconnect(self, url: str, count: int, timeout_s: float) -> None:
        """Open ``count`` connections in advance, unless a proxy is used."""
        parts = self.library.URL(url)
        if self._httpx_transport(parts) is None:
            self._pool(parts).learn(self._address(parts))
            await self._pool(parts).preconnect(self._address(parts), count, timeout_s)

    def _httpx_transport(self, url: Any) -> Any:
        """Return httpx's own transport if there is a proxy; None if our connections lead there."""
        origin = url.scheme, url.host
        if origin not in self._httpx_transports:
            proxy = None if self._socket else proxy_for(*origin)
            self._httpx_transports[origin] = None if proxy is None else self._by_proxy(url, proxy)
        return self._httpx_transports[origin]

    def _by_proxy(self, url: Any, proxy: str) -> Any:
        limits = self.library.Limits(max_connections=None, max_keepalive_connections=None)
        verify = self._access.tls if url.scheme == "https" else no_trust()
        return self.library.AsyncHTTPTransport(limits=limits, proxy=proxy, verify=verify)

    def _address(self, url: Any) -> Address:
        if self._socket:
            return self._socket, 0
        return url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)

    def _pool(self, url: Any) -> Connections:
        if url.scheme not in self._pools:
            self._pools[url.scheme] = Connections(self._access.tls if url.scheme == "https" else None)
        return self._pools[url.scheme]

    async def aclose(self) -> None:
        for pool in self._pools.values():
            pool.close()
        for inner in self._httpx_transports.values():
            if inner is not None:
                await inner.aclose()

    def _with_body(self, request: Any, body: bytes) -> Any:
        length = str(len(body)).encode()
        headers = [
            (name, length if name.lower() == b"content-length" else value) for name, value in request.headers.raw
        ]
        return self.library.Request(
            request.method, request.url, headers=headers, content=body, extensions=request.extensions
        )

    async def _through(self, inner: Any, request: Any, timings: WireTimings, framing: Framing) -> Any:
        """Send through httpx's own transport and convert its errors to ours."""
        await wait_until_due(timings)
        timings.clock = "read"
        limits = timings.timeouts
        request.extensions["trace"] = partial(_note_connection, timings)
        request.extensions["timeout"] = {"connect": limits.connect_s}
        try:
            response = await _within("first_chunk", limits.first_chunk_s, inner.handle_async_request(request))
        except self.library.ConnectTimeout:
            raise TimedOut("connect", limits.connect_s) from None
        except (self.library.NetworkError, self.library.ProxyError) as error:
            problem = tls_problem(error, request.url.host)
            raise ConnectFailed(problem or str(error) or "the connection was lost before an answer came") from None
        except self.library.TransportError as error:
            nothing_came = "disconnected without" in str(error)
            raise (ConnectFailed if nothing_came else BadWire)(str(error) or type(error).__name__) from None
        timings.content_type = response.headers.get("content-type", "")
        for name in ("retry-after", "retry-after-ms"):
            timings.told_to_wait(name, response.headers.get(name, ""))
        chunks = self._chunks(response.stream, timings, framing if response.status_code == HTTP_OK else None)
        body = self.body(chunks, response.stream.aclose)
        return await _checked(self.response(response.status_code, response.headers, body), request.url)

    async def _chunks(self, stream: Any, timings: WireTimings, framing: Framing | None) -> AsyncIterator[bytes]:
        """Yield the chunks of a body with their stamps; without framing, its bytes as they are received."""
        pieces = aiter(stream)
        selector = getattr(asyncio.get_running_loop(), "_selector", None)
        if not isinstance(selector, TimestampingSelector) or selector.processor_wait_ns is None:
            selector = None
        limit = timings.timeouts.between_chunks_s
        while True:
            try:
                piece = await _within("between_chunks", limit, anext(pieces, None))
            except self.library.TransportError as error:
                raise BadWire(str(error) or type(error).__name__) from None
            if piece is None:
                break
            timings.stamp_ns = monotonic_ns()
            timings.early_ns = None if selector is None else timings.stamp_ns - min(
                selector.found_before_ns, selector.readable_since_ns)  # fmt: skip
            for chunk in [piece] if framing is None else framing.feed(piece):
                yield chunk
        timings.ended_ns = monotonic_ns()
        if framing is not None and (rest := framing.rest()):
            yield rest


async def _checked(response: Any, asked: Any) -> Any:
    """Return a response that is an answer or an error; raise NoAnswer for any other, BadWire for a compressed one."""
    status = response.status_code
    if status == HTTP_OK and (encoding := response.headers.get("content-encoding", _PLAIN).lower()) != _PLAIN:
        await response.aclose()
        raise BadWire(f"the answer is compressed ({encoding}), although that was not asked for")
    if HTTP_OK < status < _ERRORS:
        await response.aclose()
        location = response.headers.get("location") if status >= _REDIRECTS else None
        raise NoAnswer(status, None if location is None else redirect_target(str(asked), location))
    return response


async def _note_connection(timings: WireTimings, event: str, _info: Any) -> None:
    """Note when httpcore has opened the connection (after the handshake of TCP or TLS) and sent the request."""
    if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
        timings.connected_ns = monotonic_ns()
    elif event.endswith("send_request_body.complete") and timings.sent_ns is not None:
        timings.sent_off_ns = monotonic_ns() - (timings.connected_ns or timings.sent_ns)


async def _within(limit: str, seconds: float, work: Any) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise TimedOut(limit, seconds) from None
