"""The server's end of a TCP connection, and the bytes as Ollama writes them: Go's JSON and timestamps, HTTP chunks."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from typing import Any

import httptools

JSON = "application/json; charset=utf-8"
JSON_BARE = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests",
            500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable"}  # fmt: skip
_LONGEST_UNCHUNKED = 2048


def encode(value: Any) -> bytes:
    """Return compact JSON in UTF-8 with ``<``, ``>`` and ``&`` escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return text.encode("utf-8", "replace")


def timestamp(offset_s: float = 0.0) -> str:
    """Return now (or later) in UTC as RFC 3339 with nanoseconds, without trailing zeros."""
    seconds, nanoseconds = divmod(time.time_ns() + int(offset_s * 1e9), 1_000_000_000)
    fraction = f"{nanoseconds:09d}".rstrip("0")
    return f"{_to_the_second(seconds)}{'.' if fraction else ''}{fraction}Z"


@lru_cache(maxsize=16)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@lru_cache(maxsize=4)
def _http_date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def head(status: int, content_type: str, length: int | None, close: bool = False, more: str = "") -> bytes:
    """Return status line and headers, with the lines ``more``; ``length`` None means chunked."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    end = "Connection: close\r\n\r\n" if close else "\r\n"
    first = f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\nContent-Type: {content_type}\r\n"
    return f"{first}Date: {_http_date(int(time.time()))}\r\n{size}\r\n{more}{end}".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def response(
    status: int, content_type: str, body: bytes, close: bool = False, more: str = "", chunked: bool = False
) -> bytes:
    """Return a whole response; like Go's server, chunk it if it is long, or if it is written as a stream."""
    if chunked or len(body) > _LONGEST_UNCHUNKED:
        return head(status, content_type, None, close, more) + chunk(body) + b"0\r\n\r\n"
    return head(status, content_type, len(body), close, more) + body


@dataclass(slots=True)
class HttpRequest:
    method: str = ""
    path: str = ""
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""
    keep_alive: bool = True


class ClientConnection(asyncio.Protocol):
    """HTTP/1.1 over one connection (asyncio itself sets TCP_NODELAY)."""

    def __init__(
        self, handle: Callable[[ClientConnection, HttpRequest], None], connections: set[ClientConnection],
        headers: str = "",
    ) -> None:  # fmt: skip
        self.handle = handle
        self.connections = connections
        self.headers = headers
        """Lines of every answer's head."""
        self.closes_after_stream = False
        """Whether it ends with the next stream, although its head announces that it is kept."""
        self.on_lost: Callable[[], None] | None = None
        self.parser = httptools.HttpRequestParser(self)
        self.arriving = HttpRequest()
        self.waiting: deque[HttpRequest] = deque()
        self.request: HttpRequest | None = None
        self.head_sent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.connections.discard(self)
        self.waiting.clear()
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._write(response(400, TEXT, b"400 Bad Request", close=True))
            self.close()
            return
        self._next()

    def on_message_begin(self) -> None:
        self.arriving = HttpRequest()
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        path, _, query = url.decode("latin-1").partition("?")
        self.arriving.path += path
        self.arriving.query += query

    def on_header(self, name: bytes, value: bytes) -> None:
        self.arriving.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.arriving.headers.get("expect", "").lower() == "100-continue":
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        self.arriving.method = self.parser.get_method().decode("ascii")
        self.arriving.keep_alive = self.parser.should_keep_alive()
        self.arriving.body = b"".join(self._body)
        self.waiting.append(self.arriving)

    def _next(self) -> None:
        while self.request is None and self.waiting:
            self.request = self.waiting.popleft()
            self.head_sent = False
            self.handle(self, self.request)

    def respond(self, status: int, content_type: str, body: bytes, more: str = "", chunked: bool = False) -> None:
        """Answer the request with one whole response, whose head has the lines ``more``."""
        data = response(status, content_type, body, not self._keep_alive(), self.headers + more, chunked)
        if self.request is not None and self.request.method == "HEAD":
            data = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        self._write(data)
        self._answered()

    def respond_json(self, value: Any, status: int = 200) -> None:
        """Answer the request with this value."""
        self.respond(status, JSON, encode(value))

    def send_chunks(self, content_type: str, parts: Sequence[bytes], last: bool) -> None:
        """Send part of a streamed answer in one write, each of ``parts`` as an HTTP chunk, the first with the head."""
        data = b"".join(map(chunk, parts))
        if not self.head_sent:
            data = head(200, content_type, None, close=not self._keep_alive(), more=self.headers) + data
            self.head_sent = True
        self._write(data + b"0\r\n\r\n" if last else data)
        if last and self.closes_after_stream:
            self.close()
        elif last:
            self._answered()

    def send_short(self, body: bytes) -> None:
        """Send half of what the head promises, then close the connection."""
        self._write(head(200, JSON, len(body)) + body[: len(body) // 2])
        self.close()

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():  # else the client is gone, and asyncio would complain
            self.transport.write(data)

    def reset(self) -> None:
        """Send a TCP RST."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def close(self) -> None:
        """Close once what was written is sent."""
        self.waiting.clear()
        self.transport.close()

    def _keep_alive(self) -> bool:
        return self.request is not None and self.request.keep_alive

    def _answered(self) -> None:
        if not self._keep_alive():
            self.close()
            return
        self.request = None
        if self.waiting:
            asyncio.get_running_loop().call_soon(self._next)
