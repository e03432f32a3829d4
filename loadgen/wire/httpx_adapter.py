"""``adapter`` for httpx, on which the official client of Ollama is built."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, TypeVar

import httpx

from loadgen.wire.access import Access, unix_path
from loadgen.wire.adapter import Adapter, ChunkedBody
from loadgen.wire.deadline import within
from loadgen.wire.tls import no_trust

T = TypeVar("T")

MOST_BYTES = 256 << 20
"""What an answer to a question may hold: the vectors of thousands of texts fit."""


class _Body(ChunkedBody, httpx.AsyncByteStream):
    pass


class _Response(httpx.Response):
    def __init__(self, status: int, headers: Any, body: _Body) -> None:
        super().__init__(status, headers=headers, stream=body)
        self._lines = body.lines

    def aiter_lines(self) -> AsyncIterator[str]:
        return self._lines()


class HttpxTransport(Adapter, httpx.AsyncBaseTransport):
    """The transport for httpx."""

    library = httpx
    response = _Response
    body = _Body


class Stream:
    """In the place of an httpx client's ``stream``: without redirects, cookies, authentication and hooks.

    Those of our loads have none of them, and httpx looks for each with every request: 0.1 ms.
    """

    def __init__(self, client: httpx.AsyncClient, transport: HttpxTransport) -> None:
        self._client, self._transport = client, transport
        self._known: dict[tuple[str, str], httpx.Request] = {}
        """By method and URL as they are given: a request with the URL and the headers of all that follow."""

    @asynccontextmanager
    async def __call__(self, method: str, url: str, **content: Any) -> AsyncIterator[httpx.Response]:
        """Send, and yield the response, which is closed afterwards."""
        known = self._known.get((method, url))
        if known is None:
            known = self._known[method, url] = self._client.build_request(method, url)
            known.headers.pop("content-length", None)  # that of no content
        request = httpx.Request(method, known.url, headers=known.headers, **content)
        response = await self._transport.handle_async_request(request)
        response.request = request
        try:
            yield response
        finally:
            await response.aclose()


class _Within(httpx.SyncByteStream):
    """A body that must be there by an instant of the monotonic clock: all of it, or its first line."""

    def __init__(self, body: httpx.SyncByteStream, until: float, whole: bool) -> None:
        self._body, self._until, self._whole = body, until, whole

    def __iter__(self) -> Iterator[bytes]:
        parts, size, until = iter(self._body), 0, self._until
        while (part := _by(until, lambda: next(parts, None)) if size == 0 else next(parts, None)) is not None:
            size += len(part)
            if not self._whole and b"\n" in part:
                until = float("inf")
            elif monotonic() > until:
                raise httpx.ReadTimeout("the answer does not come to an end")
            elif self._whole and size > MOST_BYTES:
                raise httpx.ReadError(f"more than {MOST_BYTES >> 20} MB came")
            yield part

    def close(self) -> None:
        self._body.close()


class _LimitedTransport(httpx.BaseTransport):
    """Limits how long an answer may take, while httpx limits each read: a peer may send a byte now and then."""

    def __init__(self, inner: httpx.BaseTransport, limit_s: float, whole: bool) -> None:
        self._inner, self._limit_s, self._whole = inner, limit_s, whole

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        until = monotonic() + self._limit_s
        try:
            response = _by(until, lambda: self._inner.handle_request(request))
        except httpx.ReadTimeout:
            self._inner.close()  # what still reads has nothing to read from
            raise
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _Within(response.stream, until, self._whole)
        return response

    def close(self) -> None:
        self._inner.close()


def _by(until: float, work: Callable[[], T]) -> T:
    try:
        return within(max(0.0, until - monotonic()), work)
    except TimeoutError:
        raise httpx.ReadTimeout("timed out") from None


def client_arguments(
    address: str, access: Access, limit_s: float, proxy: httpx.URL | None = None, *, whole: bool = True
) -> dict[str, Any]:
    """Return what a client of httpx, or one that passes arguments on to it, needs to be let in at the address.

    An answer may take ``limit_s``; of a stream that goes on (``whole`` False) only the first line may.
    """
    verify = access.tls if address.startswith("https:") else no_trust()
    inner = httpx.HTTPTransport(uds=unix_path(address), proxy=proxy, verify=verify, trust_env=False)
    return {"headers": access.encoded_headers, "transport": _LimitedTransport(inner, limit_s, whole)}
