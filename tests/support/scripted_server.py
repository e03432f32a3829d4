"""A server on 127.0.0.1 that does with each connection what a script says, for what no real server can be asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadgen.api import ollama
from loadgen.api.sending import send
from loadgen.types import Request, RequestRecord, Timeouts
from loadgen.wire.access import NO_ACCESS, Access

SOON = Timeouts(connect_s=20, first_chunk_s=20, between_chunks_s=20, total_s=20)
NDJSON = {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}
DONE = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", "eval_count": 2}


@dataclass(slots=True)
class Asked:
    """One request as it came."""

    head: str
    headers: Mapping[str, str]
    data: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.data)


class Peer:
    """The server's side of one connection."""

    def __init__(self, sock: socket.socket, number: int, server: Scripted) -> None:
        self.sock, self.number, self.server = sock, number, server
        self.file = sock.makefile("rb")

    def read(self) -> Asked | None:
        """The next request, whole; None when the client closed."""
        lines = []
        while line := self.file.readline().strip().decode("latin-1"):
            lines.append(line)
        if not lines:
            return None
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        asked = Asked(lines[0], headers, self.file.read(int(headers.get("content-length", "0"))))
        self.server.asked.append(asked)
        return asked

    def head(self, status: int = 200, headers: Mapping[str, str] = NDJSON) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
        self.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")

    def chunk(self, *lines: Any) -> None:
        """JSON lines, or bytes as they are, in one chunk; nothing at all: the end."""
        data = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
        self.sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def answer(self, *chunks: Any) -> None:
        """A whole chunked answer, one chunk a line."""
        self.head()
        for chunk in chunks:
            self.chunk(chunk)
        self.chunk()

    def plain(self, status: int, data: bytes, content_type: str = "application/json") -> None:
        self.head(status, {"Content-Type": content_type, "Content-Length": str(len(data))})
        self.sock.sendall(data)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.file.close()
        self.sock.close()


@dataclass
class Scripted:
    """Runs ``script(peer)`` for each connection in a thread of its own."""

    script: Callable[[Peer], None]
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    onward: list[socket.socket] = field(default_factory=list)
    """Connections that a script opened; shut at the end."""

    def __enter__(self) -> Scripted:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._peers: list[Peer] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def hang_up(self) -> None:
        """End every connection, whatever its script is doing."""
        for sock in (*self.onward, *(peer.sock for peer in self._peers)):
            with contextlib.suppress(OSError):  # closed already
                sock.shutdown(socket.SHUT_RDWR)

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.hang_up()
        for thread in self._threads[1:]:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            peer = Peer(sock, self.connections, self)
            self._peers.append(peer)
            thread = threading.Thread(target=self._run, args=(peer,))
            self._threads.append(thread)
            thread.start()

    def _run(self, peer: Peer) -> None:
        with contextlib.closing(peer), contextlib.suppress(OSError):  # the client went away
            self.script(peer)


def said(text: str = "", **more: Any) -> dict[str, Any]:
    """One line of a chat answer."""
    return {"message": {"role": "assistant", "content": text, **more}, "done": False}


def chat(text: str = "hi", index: int = 0, model: str = "m", **more: Any) -> Request:
    return Request(index=index, model=model, messages=({"role": "user", "content": text},), **more)


def ask(
    url: str, *requests: Request, timeouts: Timeouts = SOON, access: Access = NO_ACCESS, api: Any = ollama
) -> list[RequestRecord]:
    """Send one after the other with one client."""

    async def all_of_them() -> list[RequestRecord]:
        client = api.make_client(url, access)
        try:
            return [await send(api, client, request, timeouts, access=access) for request in requests]
        finally:
            await client.close()  # type: ignore[no-untyped-call]

    return asyncio.run(all_of_them())


def ask_script(
    script: Callable[[Peer], None], *requests: Request, timeouts: Timeouts = SOON, api: Any = ollama
) -> tuple[RequestRecord, ...]:
    with Scripted(script) as server:
        return tuple(ask(server.url, *(requests or (chat(),)), timeouts=timeouts, api=api))


def answers(*chunks: Any) -> Callable[[Peer], None]:
    """A script that answers every request with these lines."""

    def script(peer: Peer) -> None:
        while peer.read() is not None:
            peer.answer(*chunks)

    return script


def error_of(records: Sequence[RequestRecord]) -> tuple[str, int | None]:
    (record,) = records
    assert record.error is not None
    return record.error.kind, record.error.status
