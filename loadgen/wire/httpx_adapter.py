"""``adapter`` for httpx, on which the official client of Ollama is built."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx

from loadgen.wire.access import Access, unix_path
from loadgen.wire.adapter import Adapter, ChunkedBody
from loadgen.wire.tls import no_trust


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


def client_arguments(address: str, access: Access) -> dict[str, Any]:
    """Return what a client of httpx, or one that passes arguments on to it, needs to be let in at the address."""
    path = unix_path(address)
    verify = access.tls if address.startswith("https:") else no_trust()
    transport = httpx.HTTPTransport(uds=path) if path else None
    return {"headers": access.encoded_headers, "verify": verify, "transport": transport}
