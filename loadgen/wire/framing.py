"""Framing of streamed bodies: a chunk is one message of the server, with the bytes that end it."""

from __future__ import annotations

from typing import ClassVar, Protocol

_MAX_CHUNK = 16 << 20


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
        end = data.rfind(b"\n") + 1
        if 0 < end == len(data) == data.find(b"\n") + 1 and not self._rest:  # nearly always
            return [] if data.isspace() else [data]
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
