"""One TCP connection that stamps what it receives with the kernel's clock.

The stamp of a chunk is the instant at which the kernel received its last byte (Linux) or at which that was read
(elsewhere), so that the event loop's delay is measured (``read_lag_max_ns``) instead of added to TTFT and ITL. For
several chunks read at once, the kernel keeps only the last one's instant: the first has waited at most since the loop
last looked, and that is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import socket
import struct
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from time import monotonic_ns, time_ns
from typing import Any

import httptools

from loadgen.types import NS, Clock, Timeouts
from loadgen.wire.framing import BadWire, Framing

_SO_TIMESTAMPNS = 35 if sys.platform == "linux" else None
_TIMESPEC = struct.Struct("@qq")
_ANCILLARY = socket.CMSG_SPACE(_TIMESPEC.size)
_LATE_READ_NS = 1_000_000
_SAME_INSTANT_NS = 20_000
HTTP_OK = 200
"""The only status whose body is an answer."""
_BLOCKED_NS = 500_000
"""A ``select`` that took longer than this had to wait for something readable."""


class TimedOut(Exception):
    """A limit was reached, named by ``limit``."""

    def __init__(self, limit: str, seconds: float) -> None:
        super().__init__(f"{limit}: nothing within {seconds:g} s")


class ConnectFailed(Exception):
    """There is no connection, or it was lost before any answer."""


class TimestampingSelector(selectors.DefaultSelector):
    """Notes since when what it found may have been readable: since its last call, or just now if it had to wait."""

    readable_since_ns = 0
    _looked_ns = 0

    def select(self, timeout: float | None = None) -> Any:
        entered_ns = monotonic_ns()
        found = super().select(timeout)
        now = monotonic_ns()
        waited = timeout != 0 and now - entered_ns > _BLOCKED_NS
        self.readable_since_ns = now if waited else self._looked_ns
        self._looked_ns = now
        return found


class WireTimings:
    """The instants (``time.monotonic_ns``) of one request on the wire."""

    __slots__ = (
        "clock", "connected_ns", "connecting", "content_type", "due_ns", "late_reads", "read_lag_max_ns", "sent_ns",
        "stamp_ns", "timeouts",
    )  # fmt: skip

    def __init__(self, timeouts: Timeouts, due_ns: int | None = None) -> None:
        self.timeouts = timeouts
        self.due_ns = due_ns
        """Hold the request back until then; None: send at once."""
        self.sent_ns: int | None = None
        self.connecting = False
        self.connected_ns: int | None = None
        self.content_type = ""
        self.stamp_ns: int | None = None
        """Of the chunk that was yielded last."""
        self.late_reads = False
        """That chunk waited over 1 ms in the kernel: chunks read with it have lost their own instants."""
        self.read_lag_max_ns = 0
        self.clock: Clock | None = None


class Connection:
    """One TCP connection: sends a request, yields the chunks of its answer with their stamps."""

    def __init__(self, sock: socket.socket, address: tuple[str, int]) -> None:
        self.address = address
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._selector = getattr(self._loop, "_selector", None)
        self._buffer = bytearray(1 << 16)
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self._timings: WireTimings | None = None
        self._keep_alive = False
        self.closed = False
        self._loop.add_reader(sock, self._on_readable)

    @classmethod
    async def open(cls, address: tuple[str, int], timeout_s: float) -> Connection:
        try:
            async with asyncio.timeout(timeout_s):
                sock = await _connect(*address)
        except TimeoutError:
            raise TimedOut("connect", timeout_s) from None
        except (OSError, UnicodeError) as error:  # a name that cannot be one is a UnicodeError
            where = address[0] if address[0].startswith("/") else f"{address[0]}:{address[1]}"
            raise ConnectFailed(f"no connection to {where}: {_reason(error)}") from None
        return cls(sock, address)

    async def request(self, data: bytes, timings: WireTimings, framing: Callable[[], Framing]) -> None:
        """Send, and return when the answer's status and headers have arrived."""
        self._timings = timings
        self._parser = httptools.HttpResponseParser(self)
        self._framing = framing()
        self._chunks: deque[tuple[bytes, int, bool]] = deque()
        self._body: list[bytes] = []
        self._failure: Exception | None = None
        self._headers_done = self._started = self.complete = self._sized = self._late = False
        self._watch("first_chunk", timings.timeouts.first_chunk_s)
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ConnectFailed(f"the connection was lost while sending: {error.strerror}") from None
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:])
        while not self._headers_done:
            await self._more()

    async def _send_rest(self, data: memoryview) -> None:
        self._sending = self._loop.create_task(self._loop.sock_sendall(self._sock, data))
        try:
            await self._sending
        except OSError as error:
            raise ConnectFailed(f"the connection was lost while sending: {error.strerror}") from None
        except asyncio.CancelledError:
            if self._failure is None:  # else we closed it ourselves, and the wait for an answer raises the reason
                raise

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield each chunk with its stamp in ``WireTimings``; the body of an error comes as it is received."""
        timings = self._timings
        assert timings is not None
        while True:
            while self._chunks:
                chunk, timings.stamp_ns, timings.late_reads = self._chunks.popleft()
                yield chunk
            if self.complete and self._failure is None:
                return
            await self._more()

    def usable(self) -> bool:
        """Return whether the idle connection is still open, as far as the kernel knows."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:  # lost, or closed already
            pass
        self.close()
        return False

    def release(self) -> bool:
        """Return whether the connection can be reused; close it if not, as when the answer was not read to its end."""
        self._unwatch()
        self._timings = None
        if not (self.complete and self._keep_alive):
            self.close()
        return not self.closed

    def close(self) -> None:
        self._unwatch()
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._sock)
            if self._sending is not None:
                # Otherwise the event loop would wait for ever to write to the closed socket.
                self._loop.remove_writer(self._sock)
                self._sending.cancel()
            self._sock.close()

    async def _more(self) -> None:
        """Wait for the next bytes; raise what ended the connection."""
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        await self._waiter
        if self._failure is not None and not self._chunks:
            raise self._failure

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _on_readable(self) -> None:
        try:
            size, ancillary, _, _ = self._sock.recvmsg_into([self._buffer], _ANCILLARY)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            return self._lost(f"the connection was reset: {error.strerror}")
        if size == 0:
            return self._lost("the connection was closed")
        timings = self._timings
        if timings is None or self.complete:  # a connection on which the server sends unasked is of no use
            return self.close()
        now, wall = _clocks()
        lag = _kernel_lag(ancillary, wall)
        if lag is None:
            timings.clock, lag = "read", 0
        else:
            timings.clock = timings.clock or "kernel"
            if lag > timings.read_lag_max_ns:
                timings.read_lag_max_ns = lag
        try:
            self._parser.feed_data(self._buffer[:size])
            if self._body:
                self._take_body(timings, now - lag, now)
            if self.complete:
                self._take_rest()
        except httptools.HttpParserUpgrade:
            self._fail(BadWire("the server switched to another protocol"))
        except httptools.HttpParserError as error:
            self._fail(BadWire("the server sent more than the answer" if self.complete else str(error)))
        except BadWire as error:
            self._fail(error)
        self._wake()

    def _take_body(self, timings: WireTimings, stamp_ns: int, read_ns: int) -> None:
        body = b"".join(self._body)
        self._body.clear()
        chunks = self._framing.feed(body) if self.status == HTTP_OK else [body]
        if not self._started:
            self._started = True
            self._watch("between_chunks", timings.timeouts.between_chunks_s)
        self._last_ns = stamp_ns
        waited_ns = read_ns - stamp_ns
        if len(chunks) > 1 and isinstance(self._selector, TimestampingSelector):
            waited_ns = max(waited_ns, read_ns - self._selector.readable_since_ns)
            timings.read_lag_max_ns = max(timings.read_lag_max_ns, waited_ns)
        self._late = waited_ns > _LATE_READ_NS
        for chunk in chunks:
            self._chunks.append((chunk, stamp_ns, self._late))

    def _take_rest(self) -> None:
        """Take what is left at the body's end as the last chunk."""
        if rest := self._framing.rest():
            self._chunks.append((rest, self._last_ns, self._late))

    def _lost(self, what: str) -> None:
        if self._timings is not None and not self.complete:
            if not self._headers_done:
                self._fail(ConnectFailed(f"{what} before an answer came"))
            elif self._sized:
                self._fail(BadWire(f"{what} before the answer's end"))
            else:
                self.complete = True
                self._take_rest()
        self.close()
        self._wake()

    def _fail(self, failure: Exception) -> None:
        self._failure = failure
        self.close()
        self._wake()

    # One lazy timer per request: it checks the last arrival when it fires, so that a chunk costs nothing.

    def _watch(self, limit: str, seconds: float) -> None:
        self._unwatch()
        self._last_ns = monotonic_ns()
        self._timer = self._loop.call_later(seconds, self._on_timer, limit, seconds)

    def _on_timer(self, limit: str, seconds: float) -> None:
        left = seconds - (monotonic_ns() - self._last_ns) / NS
        if self.complete:
            return
        if left > 0:
            self._timer = self._loop.call_later(left, self._on_timer, limit, seconds)
        else:
            self._fail(TimedOut(limit, seconds))

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        """Begin with the headers of an answer, or of an informational one before it."""
        if self.complete:
            raise BadWire
        self.headers: list[tuple[bytes, bytes]] = []
        self._sized = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers_done:  # a trailer, which changes nothing about the answer
            return
        self.headers.append((name, value))
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._sized = True
        elif name == b"content-type" and self._timings is not None:
            self._timings.content_type = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status: int = self._parser.get_status_code()
        self._headers_done = self.status >= HTTP_OK

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.complete = self._headers_done
        self._keep_alive = self._parser.should_keep_alive()  # the parser forgets when this returns


async def _connect(host: str, port: int) -> socket.socket:
    """Connect to the first address that answers: ``localhost`` may be IPv6 first, and Ollama listen on IPv4 only."""
    if host.startswith("/"):
        return await _connect_to(socket.socket(socket.AF_UNIX), host)
    addresses = await _resolve(host, port)
    for family, kind, proto, _, target in addresses:
        try:
            return await _connect_to(socket.socket(family, kind, proto), target)
        except OSError as error:
            failure = error
    raise failure


async def _resolve(host: str, port: int) -> list[Any]:
    """Return the host's addresses; only a name needs the resolver's thread, a number is parsed here."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def _connect_to(sock: socket.socket, target: Any) -> socket.socket:
    """Connect the socket and enable kernel stamps; close it if that fails."""
    try:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if _SO_TIMESTAMPNS is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        await asyncio.get_running_loop().sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


def _reason(error: Exception) -> str:
    """Return the system's message, which asyncio replaces with its own and the address."""
    number = getattr(error, "errno", None)
    if number is not None and number > 0:
        return os.strerror(number)
    return getattr(error, "strerror", None) or str(error)


def _clocks() -> tuple[int, int]:
    """Return monotonic and wall time of one instant; read again if this process was preempted between the two."""
    for _ in range(3):
        now, wall = monotonic_ns(), time_ns()
        if monotonic_ns() - now < _SAME_INSTANT_NS:
            break
    return now, wall


def _kernel_lag(ancillary: list[tuple[int, int, bytes]], wall_ns: int) -> int | None:
    """Return the nanoseconds since the kernel received what was just read; None if it does not report it."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            received: int = seconds * NS + nanoseconds
            # Wall clock against wall clock: a step of it between the two would show as a negative lag.
            return max(0, wall_ns - received)
    return None
