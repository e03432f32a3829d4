"""A connection of which a test plays the server, the kernel and the clock, so that nothing in it takes time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any, TypeVar

import httpx
import pytest

from loadgen.api import ollama
from loadgen.api import sending as sending_module
from loadgen.api.sending import send
from loadgen.types import NS, Request, RequestRecord, Timeouts
from loadgen.wire import connection as connection_module
from loadgen.wire import stamps as stamps_module
from loadgen.wire import transport as wire_module
from loadgen.wire.connection import Connection, WireTimings
from loadgen.wire.framing import Ndjson
from loadgen.wire.stamps import TimestampingSelector

T = TypeVar("T")
WALL_NS = 1_700_000_000 * NS
"""What the wall clock is ahead of the monotonic one."""
SCM_TIMESTAMPNS = 35
LONG = Timeouts(connect_s=100, first_chunk_s=100, between_chunks_s=100, total_s=1000)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def lines(*each: Any) -> bytes:
    return b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in each)


def chunk(*each: Any) -> bytes:
    """JSON lines, or bytes as they are, in one chunk."""
    data = lines(*each)
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class Clock:
    ns: int = 1000 * NS

    def monotonic_ns(self) -> int:
        return self.ns

    def time_ns(self) -> int:
        return self.ns + WALL_NS


class Loop(asyncio.SelectorEventLoop):
    """Time is the clock's."""

    def __init__(self, clock: Clock, stamping: bool) -> None:
        self.clock = clock
        self.timers = 0
        super().__init__(TimestampingSelector() if stamping else None)

    def time(self) -> float:
        return self.clock.ns / NS

    def call_later(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        self.timers += 1
        return super().call_later(*args, **kwargs)


class Connecting(asyncio.SelectorEventLoop):
    """Notes who is called; there is an error instead of a connection, if one is given."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.called: list[tuple[Any, bool]] = []

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self.called.append((address, bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))))
        if self.error is not None:
            raise self.error
        await super().sock_connect(sock, address)


class Wire(socket.socket):
    """Our end: its kernel tells how long it had what is read, and fails when it is to."""

    def __init__(self, ours: socket.socket, clock: Clock) -> None:
        super().__init__(fileno=ours.detach())
        self.setblocking(False)
        self.clock = clock
        self.lags_ns: deque[int | None] = deque()
        """For each read to come; None: the kernel does not tell. At once, when there are no more."""
        self.sends: deque[int | OSError] = deque()
        """How many bytes each send to come takes, or what it raises."""
        self.reads: deque[OSError] = deque()

    def send(self, data: Any, flags: int = 0) -> int:
        takes = self.sends.popleft() if self.sends else len(data)
        if isinstance(takes, OSError):
            raise takes
        return super().send(data[:takes], flags)

    def recvmsg_into(self, buffers: Any, ancbufsize: int = 0, flags: int = 0) -> Any:
        if self.reads:
            raise self.reads.popleft()
        size, _, came_with, address = super().recvmsg_into(buffers, ancbufsize, flags)
        lag_ns = self.lags_ns.popleft() if self.lags_ns else 0
        # Of another level or kind, as tunnels and other options of a socket make them.
        ancillary = [(socket.IPPROTO_TCP, SCM_TIMESTAMPNS, bytes(16)), (socket.SOL_SOCKET, 29, bytes(16))]
        if lag_ns is not None:
            stamp = struct.pack("@qq", *divmod(self.clock.time_ns() - lag_ns, NS))
            ancillary.append((socket.SOL_SOCKET, SCM_TIMESTAMPNS, stamp))
        return size, ancillary, came_with, address


class Played:
    def __init__(self, clock: Clock) -> None:
        ours, self.server = socket.socketpair()
        self.clock = clock
        self.wire = Wire(ours, clock)
        self.connection = Connection(self.wire, ("127.0.0.1", 11434))
        self.timings = WireTimings(LONG)
        self.opens = asyncio.Event()
        self.opens.set()
        """Clear it, and the connection takes for ever to open."""

    async def open(self, *_: Any) -> Connection:
        """In place of ``Connection.open``."""
        await self.opens.wait()
        return self.connection

    async def send(self, request: Request, **more: Any) -> asyncio.Task[RequestRecord]:
        """Have the official client send it; its answer is up to the test."""
        client = ollama.make_client("http://127.0.0.1:11434")
        sending = asyncio.create_task(send(ollama, client, request, more.pop("limits", LONG), **more))
        await settled()
        return sending

    async def ask(self, answer: bytes = HEAD, lag_ns: int | None = 0, limits: Timeouts = LONG) -> AsyncIterator[bytes]:
        """Send a request, answer it with this, return what comes of its body."""
        self.timings = WireTimings(limits)
        asking = asyncio.create_task(self.connection.request(b"GET /", self.timings, Ndjson))
        await settled()
        self.say(answer, lag_ns)
        await asking
        return self.connection.chunks()

    def say(self, data: bytes, lag_ns: int | None = 0) -> None:
        self.wire.lags_ns.append(lag_ns)
        self.server.sendall(data)

    async def passes(self, seconds: float) -> None:
        self.clock.ns += round(seconds * NS)
        await settled()

    def heard(self) -> bytes:
        """What has reached the server since it was last asked."""
        came = b""
        self.server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while data := self.server.recv(1 << 16):
                came += data
        return came

    def was_left(self) -> bool:
        """The server sees that we closed the connection."""
        self.heard()
        try:
            return self.server.recv(1) == b""
        except BlockingIOError:
            return False


async def settled() -> None:
    """The event loop has seen to all that is there."""
    for _ in range(6):
        await asyncio.sleep(0)


def play(script: Callable[[Played], Awaitable[T]], *, stamping: bool = False) -> T:
    clock = Clock()

    async def played() -> T:
        all_of_it = Played(clock)
        patch.setattr(Connection, "open", all_of_it.open)
        try:
            return await script(all_of_it)
        finally:
            all_of_it.connection.close()
            all_of_it.server.close()

    with pytest.MonkeyPatch.context() as patch:
        for module in (connection_module, stamps_module, sending_module, wire_module):
            patch.setattr(module, "monotonic_ns", clock.monotonic_ns)
        patch.setattr(stamps_module, "time_ns", clock.time_ns)
        with asyncio.Runner(loop_factory=lambda: Loop(clock, stamping)) as runner:
            return runner.run(played())


class Body(httpx.AsyncByteStream):
    """The body of an answer: pieces, or what it breaks off with."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = pieces
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def aclose(self) -> None:
        self.closed = True


class Answering(httpx.AsyncBaseTransport):
    """In place of httpx's own transport: answers with this, or raises it."""

    def __init__(self, answer: httpx.Response | Exception, events: tuple[str, ...] = ()) -> None:
        self.answer, self.events = answer, events
        self.requests: list[httpx.Request] = []
        self.happened_ns: list[int] = []
        self.closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        for event in ("started", *self.events):
            self.happened_ns.append(monotonic_ns())
            await request.extensions["trace"](event, {})
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def aclose(self) -> None:
        self.closed = True

    def ask(self, request: Request, limits: Timeouts = LONG, **more: Any) -> RequestRecord:
        """Send with the official client."""

        async def sent() -> RequestRecord:
            client = ollama.make_client("https://nowhere.invalid")
            record = await send(ollama, client, request, limits, **more)
            await client.close()  # type: ignore[no-untyped-call]
            return record

        with self.instead():
            return asyncio.run(sent())

    @contextlib.contextmanager
    def instead(self) -> Iterator[None]:
        """Where our own connections do not lead, this answers."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(httpx, "AsyncHTTPTransport", lambda **_: self)
            patch.setenv("HTTPS_PROXY", "http://proxy.invalid:1")
            yield


def answering(*pieces: bytes | Exception, status: int = 200, content_type: str | None = "application/x-ndjson",
              location: str | None = None) -> Answering:  # fmt: skip
    told = {"Content-Type": content_type, "Location": location}
    headers = {name: value for name, value in told.items() if value is not None}
    return Answering(httpx.Response(status, headers=headers, stream=Body(*pieces)))
