"""Bytes as Ollama writes them: Go's JSON and timestamps, HTTP heads and chunks."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from functools import lru_cache
from typing import Any

JSON = "application/json; charset=utf-8"
JSON_BARE = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error",
            501: "Not Implemented", 503: "Service Unavailable"}  # fmt: skip
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


def head(status: int, content_type: str, length: int | None, close: bool = False) -> bytes:
    """Return status line and headers; ``length`` None means chunked."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    end = "Connection: close\r\n\r\n" if close else "\r\n"
    first = f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\nContent-Type: {content_type}\r\n"
    return f"{first}Date: {_http_date(int(time.time()))}\r\n{size}\r\n{end}".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def response(status: int, content_type: str, body: bytes, close: bool = False) -> bytes:
    """Return a whole response; like Go's server, chunk it if it is long or written as a stream."""
    if len(body) > _LONGEST_UNCHUNKED or content_type in (JSON_BARE, NDJSON):
        return head(status, content_type, None, close) + chunk(body) + b"0\r\n\r\n"
    return head(status, content_type, len(body), close) + body
