"""What a chunk of a streamed body is: the bytes that the server sent as one message.

An API says which framing its answers have; ``connection`` stamps each chunk with the instant of its last byte. A body
is its chunks joined: each keeps the bytes that end it. Framing of another kind (server-sent events) belongs here too.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

_MAX_CHUNK = 16 << 20


class BadWire(Exception):
    """Bytes that are not an HTTP answer, or whose body is not what its framing allows."""


class Framing(Protocol):
    """Cuts one body into chunks."""

    NAME: ClassVar[str]
    CONTENT_TYPES: ClassVar[tuple[str, ...]]
    """How the content type of an answer that is framed so begins."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take in the next bytes and return the chunks that they complete; BadWire for what cannot be one."""

    def rest(self) -> bytes:
        """Return what came after the last whole chunk: the last one, if the body ends here."""


class Ndjson:
    """Newline-delimited JSON: a chunk is a line."""

    __slots__ = ("_rest",)

    NAME: ClassVar[str] = "NDJSON"
    CONTENT_TYPES: ClassVar[tuple[str, ...]] = ("application/x-ndjson", "application/json")

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        end = data.rfind(b"\n") + 1
        if 0 < end == len(data) == data.find(b"\n") + 1 and not self._rest:  # nearly always
            return [data]
        whole = data[:end]
        if whole and self._rest:
            whole = bytes(self._rest) + whole
            self._rest.clear()
        self._rest += data[end:]
        if len(self._rest) > _MAX_CHUNK:
            raise BadWire(f"a line of the answer is longer than {_MAX_CHUNK >> 20} MiB")
        return [line + b"\n" for line in whole.split(b"\n")[:-1]]

    def rest(self) -> bytes:
        return bytes(self._rest)
