"""Framing of streamed bodies: a chunk is one message of the server, with the bytes that end it."""

from __future__ import annotations

from typing import ClassVar, Protocol

_MAX_CHUNK = 16 << 20
_BOM = b"\xef\xbb\xbf"
"""May stand before the first event."""


class BadWire(Exception):
    """Bytes that are not an HTTP answer, or whose body is not what its framing allows."""


class NoAnswer(Exception):
    """A status that brings no answer: a redirect, which is not followed, or a success other than 200."""

    def __init__(self, status: int, location: str | None) -> None:
        what = "is not an answer" if location is None else f"redirects to {location}: give that as --host"
        super().__init__(f"HTTP {status} {what}")
        self.status = status


class Framing(Protocol):
    """Splits one body into chunks."""

    NAME: ClassVar[str]
    CONTENT_TYPES: ClassVar[tuple[str, ...]]
    """Prefixes of the content types of answers in this framing."""

    def feed(self, data: bytes) -> list[bytes]:
        """Add the next bytes and return the chunks that they complete; BadWire for one that is invalid."""

    def rest(self) -> bytes:
        """Return what came after the last complete chunk: the last one, if the body ends here."""


class Ndjson:
    """Newline-delimited JSON: a chunk is a line that is not blank, and ends at a line feed only, never at U+0085."""

    __slots__ = ("_rest",)

    NAME: ClassVar[str] = "NDJSON"
    CONTENT_TYPES: ClassVar[tuple[str, ...]] = ("application/x-ndjson", "application/json")

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        if 0 < len(data) == data.find(b"\n") + 1 and not self._rest:  # nearly always
            return [] if data.isspace() else [data]
        end = data.rfind(b"\n") + 1
        whole = data[:end]
        if whole and self._rest:
            whole = bytes(self._rest) + whole
            self._rest.clear()
        self._rest += data[end:]
        if len(self._rest) > _MAX_CHUNK:
            raise BadWire(f"a line of the answer is longer than {_MAX_CHUNK >> 20} MiB")
        return [line + b"\n" for line in whole.split(b"\n")[:-1] if line and not line.isspace()]

    def rest(self) -> bytes:
        return b"" if self._rest.isspace() else bytes(self._rest)


class Sse:
    """Server-sent events: a chunk is an event with its data; comments, which keep a connection open, are none."""

    __slots__ = ("_rest",)

    NAME: ClassVar[str] = "an event stream"
    CONTENT_TYPES: ClassVar[tuple[str, ...]] = ("text/event-stream",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        is_one = data.startswith(b"data: ") and data.find(b"\n") == len(data) - 2 and data.endswith(b"\n\n")
        if is_one and not self._rest and b"\r" not in data:  # nearly always
            return [data]
        body = self._rest + data
        held = body[-1:] if body.endswith(b"\r") else b""  # perhaps half of a line's end
        events = body[: len(body) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")
        self._rest = events.pop() + held
        if len(self._rest) > _MAX_CHUNK:
            raise BadWire(f"an event of the answer is longer than {_MAX_CHUNK >> 20} MiB")
        return [event.removeprefix(_BOM) + b"\n\n" for event in events if _has_data(event)]

    def rest(self) -> bytes:
        return self._rest if _has_data(self._rest) else b""


def _has_data(event: bytes) -> bool:
    begins = event.startswith((b"data:", b"error:", _BOM + b"data:", b"{", b"["))  # JSON in the place of events
    return begins or b"\ndata:" in event
