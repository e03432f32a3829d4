"""``adapter`` for httpx2, on which the official clients of OpenAI and Anthropic are built."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2

from loadgen.wire.adapter import Adapter, ChunkedBody


class _Body(ChunkedBody, httpx2.AsyncByteStream):
    pass


class _Response(httpx2.Response):
    def __init__(self, status: int, headers: Any, body: _Body) -> None:
        super().__init__(status, headers=headers, stream=body)
        self._lines = body.lines

    def aiter_lines(self) -> AsyncIterator[str]:
        return self._lines()


class Httpx2Transport(Adapter, httpx2.AsyncBaseTransport):
    """The transport for httpx2."""

    library = httpx2
    response = _Response
    body = _Body
