"""One connection that stamps what it receives with the kernel's clock, below TLS where there is TLS.

The stamp of a chunk is the instant at which the kernel received its last byte (Linux) or at which that was read
(elsewhere), so that the event loop's delay is measured (``read_lag_max_ns``) instead of added to TTFT and ITL. For
several chunks read at once, the kernel keeps only the last one's instant: by how much the others may have come earlier
is kept beside the stamp (``stamps``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from time import monotonic_ns
from typing import Any

import httptools

from loadgen.types import NS, Clock, Timeouts
from loadgen.wire.framing import BadWire, Framing
from loadgen.wire.stamps import ANCILLARY, KernelClock, TimestampingSelector, ask_for_stamps, troubles
from loadgen.wire.tls import TlsLayer, tls_problem

_LATE_READ_NS = 1_000_000
HTTP_OK = 200
"""The only status whose body is an answer."""


class TimedOut(Exception):
    """A limit was reached, named by ``limit``."""

    def __init__(self, limit: str, seconds: float) -> None:
        super().__init__(f"{limit}: nothing within {seconds:g} s")


class ConnectFailed(Exception):
    """There is no connection, or it was lost before any answer."""


Take = Callable[[bytes, int, int | None, bool], bool]
"""Gets a chunk, its stamp, by how much it may be early and whether it is late; returns whether it took it."""


class WireTimings:
    """The instants (``time.monotonic_ns``) of one request on the wire."""

    __slots__ = (
        "clock", "connected_ns", "connecting", "content_type", "due_ns", "early_ns", "ended_ns", "late", "out_of_order",
        "processor_wait_ns", "read_lag_max_ns", "resent", "retry_after", "sent_ns", "sent_off_ns", "stamp_ns", "take",
        "timeouts",
    )  # fmt: skip

    def __init__(self, timeouts: Timeouts, due_ns: int | None = None) -> None:
        self.timeouts = timeouts
        self.due_ns = due_ns
        """Hold the request back until then; None: send at once."""
        self.take: Take | None = None
        """Takes a chunk of the usual form as it is read, so that nobody needs to be woken for it."""
        self.sent_ns: int | None = None
        self.sent_off_ns: int | None = None
        """How much later than ``sent_ns``, at most, it was sent by this client's own doing: from when the connection
        opened, or nothing if one was open; None: unknown."""
        self.connecting = False
        self.connected_ns: int | None = None
        self.content_type = ""
        self.retry_after = ""
        """The header with which a server says when to ask again."""
        self.stamp_ns: int | None = None
        """Of the chunk that was yielded last."""
        self.early_ns: int | None = None
        """How much earlier than its stamp, at most, that chunk was received; None: unknown."""
        self.late = False
        """It was read over 1 ms late together with a later one, and so has lost its own instant."""
        self.ended_ns: int | None = None
        """When the body's end was received."""
        self.read_lag_max_ns = 0
        self.processor_wait_ns: int | None = None
        """How long this client waited for a processor when the first chunk came, if it shares the server's machine."""
        self.clock: Clock | None = None
        self.resent: int | None = None
        self.out_of_order: int | None = None
        """Segments that this end sent again, and that reached it after later ones: some were lost; None: unknown."""

    def told_to_wait(self, header: str, value: str) -> None:
        """Keep what such a header says; one in milliseconds says it more exactly."""
        if value and header == "retry-after-ms":
            self.retry_after = f"{value}ms"
        elif not self.retry_after:
            self.retry_after = value


class Connection:
    """One connection: sends a request, yields the chunks of its answer with their stamps."""

    def __init__(self, sock: socket.socket, address: tuple[str, int], tls: TlsLayer | None = None) -> None:
        self.address = address
        self._sock = sock
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        selector = getattr(self._loop, "_selector", None)
        self._selector = selector if isinstance(selector, TimestampingSelector) else None
        self._kernel_clock = KernelClock()
        self._is_local = _same_machine(sock)
        self._troubles = troubles(sock)
        self._buffer = bytearray(1 << 16)
        self._view = memoryview(self._buffer)
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self._timings: WireTimings | None = None
        self._keep_alive = False
        self.closed = False
        self._loop.add_reader(sock, self._on_readable)
        if self._selector is not None:
            self._selector.readers[sock.fileno()] = self._on_readable

    @classmethod
    async def open(
        cls, address: tuple[str, int], timeout_s: float, context: ssl.SSLContext | None = None
    ) -> Connection:  # fmt: skip
        """Open a connection, with TLS if there is a context for it."""
        where = address[0] if address[0].startswith("/") else f"{address[0]}:{address[1]}"
        try:
            async with asyncio.timeout(timeout_s):
                sock = await _connect(*address)
                tls = None if context is None else await _shake_hands(sock, context, address[0])
        except TimeoutError:
            raise TimedOut("connect", timeout_s) from None
        except (OSError, ValueError) as error:  # a name that cannot be one is a ValueError
            raise ConnectFailed(tls_problem(error, where) or f"no connection to {where}: {_reason(error)}") from None
        return cls(sock, address, tls)

    async def request(self, data: bytes, timings: WireTimings, framing: Callable[[], Framing]) -> None:
        """Send, and return when the answer's status and headers have arrived."""
        self._timings = timings
        self._parser = httptools.HttpResponseParser(self)
        self._framing = framing()
        self._chunks: deque[tuple[bytes, int, int | None, bool]] = deque()
        self._body: list[bytes] = []
        self._failure: Exception | None = None
        self._headers_done = self._started = self._reading = self.complete = self._sized = False
        self._watch("first_chunk", timings.timeouts.first_chunk_s)
        if self._tls is not None:
            data = self._tls.encrypt(data)
        self._kernel_clock.look()
        if timings.connected_ns is None:
            timings.sent_ns, timings.sent_off_ns = monotonic_ns(), 0
        elif self._selector is not None:
            timings.sent_off_ns = max(0, monotonic_ns() - self._selector.readable_since_ns)
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._not_sent(error) from None
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:])
        while not self._headers_done:
            await self._more()

    async def _send_rest(self, data: memoryview) -> None:
        self._sending = self._loop.create_task(self._loop.sock_sendall(self._sock, data))
        try:
            await self._sending
            self._sending = None
        except OSError as error:
            raise self._not_sent(error) from None
        except asyncio.CancelledError:
            if self._failure is None:  # else we closed it ourselves, and the wait for an answer raises the reason
                raise

    def _not_sent(self, error: OSError) -> Exception:
        """Return why the request could not be sent: over TLS, the server may have said that."""
        if self._tls is not None and not self.closed:
            self._on_readable()
        return self._failure or ConnectFailed(f"the connection was lost while sending: {error.strerror}")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield each chunk that was not taken, its stamp in ``WireTimings``; an error's body as it is received."""
        timings = self._timings
        assert timings is not None
        self._reading = True
        while True:
            while self._chunks:
                chunk, timings.stamp_ns, timings.early_ns, timings.late = self._chunks.popleft()
                yield chunk
            if self.complete and self._failure is None:
                return
            await self._more()

    def usable(self) -> bool:
        """Return whether the idle connection is still open, as far as the kernel knows."""
        try:
            while self._sock.recv(1, socket.MSG_PEEK) and self._tls is not None:
                self._on_readable()  # a session ticket, perhaps: only what TLS has for itself leaves it open
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
            if self._selector is not None:
                self._selector.readers.pop(self._sock.fileno(), None)
            if self._sending is not None:
                # Otherwise the event loop would wait for ever to write to the closed socket.
                self._loop.remove_writer(self._sock)
                self._sending.cancel()
            elif self._tls is not None:
                with contextlib.suppress(OSError):
                    self._sock.send(self._tls.goodbye())
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
            size, ancillary, _, _ = self._sock.recvmsg_into([self._buffer], ANCILLARY)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            return self._lost(f"the connection was reset: {error.strerror}")
        if size == 0:
            return self._lost("the connection was closed")
        data = self._buffer[:size] if self._tls is None else self._decrypted(size)
        if not data:
            return None
        timings = self._timings
        if timings is None or self.complete:  # a connection on which the server sends unasked is of no use
            return self.close()
        received_ns, now = self._kernel_clock.received_ns(ancillary)
        if received_ns is None:
            timings.clock = "stepped" if self._kernel_clock.stepped else "read"
        else:
            timings.clock = timings.clock or "kernel"
            if now - received_ns > timings.read_lag_max_ns:
                timings.read_lag_max_ns = now - received_ns
        try:
            self._parser.feed_data(data)
            if self._body:
                self._take_body(timings, received_ns, now)
            if self.complete:
                timings.ended_ns = now if received_ns is None else received_ns
                self._take_rest()
                self._count_troubles(timings)
        except httptools.HttpParserUpgrade:
            self._fail(BadWire("the server switched to another protocol"))
        except httptools.HttpParserError as error:
            self._fail(BadWire("the server sent more than the answer" if self.complete else str(error)))
        except BadWire as error:
            self._fail(error)
        if self._chunks or self.complete or not self._reading:
            self._wake()
        if self._tls is not None and self._tls.ended:
            self._lost("the connection was closed")
        return None

    def _decrypted(self, size: int) -> bytes:
        """Return what the records bring that the buffer completes; nothing of an answer for what is TLS's own."""
        assert self._tls is not None
        try:
            data = self._tls.decrypt(self._view[:size])
        except ssl.SSLError as error:
            self._lost(tls_problem(error, self.address[0]) or str(error))
            return b""
        if (self._tls.has_to_send and not self._replied(self._tls.to_send())) or (self._tls.ended and not data):
            self._lost("the connection was closed")
        return data

    def _replied(self, reply: bytes) -> bool:
        """Send what TLS itself replies; return whether there was room for it."""
        try:
            return self._sending is None and self._sock.send(reply) == len(reply)
        except OSError:
            return False

    def _count_troubles(self, timings: WireTimings) -> None:
        """Note the segments of this request and its answer that were lost on the way, as far as this end sees it."""
        before, self._troubles = self._troubles, troubles(self._sock)
        if before is not None and self._troubles is not None:
            timings.resent, timings.out_of_order = (
                now - then for now, then in zip(self._troubles, before, strict=True)
            )

    def _take_body(self, timings: WireTimings, received_ns: int | None, read_ns: int) -> None:
        body = b"".join(self._body)
        self._body.clear()
        chunks = self._framing.feed(body) if self.status == HTTP_OK else [body]
        if not self._started:
            self._started = True
            self._watch("between_chunks", timings.timeouts.between_chunks_s)
            if self._is_local and self._selector is not None:
                timings.processor_wait_ns = self._selector.processor_wait_ns
        self._last_ns = stamp_ns = read_ns if received_ns is None else received_ns
        since_ns = None
        if self._selector is not None:
            since_ns = self._selector.readable_since_ns
            self._selector.note_read(len(chunks))
        early_ns = None if since_ns is None else max(0, stamp_ns - since_ns)
        self._last_early_ns = early_ns if received_ns is None else 0
        take = timings.take if self.status == HTTP_OK else None
        if len(chunks) > 1:
            if since_ns is not None:
                timings.read_lag_max_ns = max(timings.read_lag_max_ns, read_ns - since_ns)
            late = read_ns - (stamp_ns if since_ns is None else since_ns) > _LATE_READ_NS
            for chunk in chunks[:-1]:
                self._hand_over(take, chunk, stamp_ns, early_ns, late)
        if chunks:
            self._hand_over(take, chunks[-1], stamp_ns, self._last_early_ns, False)

    def _hand_over(self, take: Take | None, chunk: bytes, stamp_ns: int, early_ns: int | None, late: bool) -> None:
        """Give the chunk to who takes it as it is read, or keep it for ``chunks``; never out of their order."""
        if take is None or self._chunks or not take(chunk, stamp_ns, early_ns, late):
            self._chunks.append((chunk, stamp_ns, early_ns, late))

    def _take_rest(self) -> None:
        """Take what is left at the body's end as the last chunk."""
        if rest := self._framing.rest():
            self._chunks.append((rest, self._last_ns, self._last_early_ns, False))

    def _lost(self, what: str) -> None:
        if self._timings is not None and not self.complete:
            if not self._headers_done:
                self._fail(ConnectFailed(f"{what} before an answer came"))
            elif self._sized or (self._tls is not None and not self._tls.ended):  # else anybody may have cut it
                self._fail(BadWire(f"{what} before the answer's end"))
            else:
                self.complete = True
                self._timings.ended_ns = monotonic_ns()
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
        elif name in (b"retry-after", b"retry-after-ms") and self._timings is not None:
            self._timings.told_to_wait(name.decode(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        self.status: int = self._parser.get_status_code()
        self._headers_done = self.status >= HTTP_OK

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.complete = self._headers_done
        self._keep_alive = self._parser.should_keep_alive()  # the parser forgets when this returns


def _same_machine(sock: socket.socket) -> bool:
    """Return whether the other end is on this machine, by its address."""
    try:
        return sock.family == socket.AF_UNIX or bool(sock.getsockname()[0] == sock.getpeername()[0])
    except OSError:  # lost already
        return False


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


async def _shake_hands(sock: socket.socket, context: ssl.SSLContext, host: str) -> TlsLayer:
    """Agree on TLS; close the socket if that fails."""
    loop = asyncio.get_running_loop()
    try:
        tls = TlsLayer(context, host)
        while not tls.shake_hands():
            await loop.sock_sendall(sock, tls.to_send())
            if not (received := await loop.sock_recv(sock, 1 << 16)):
                raise ConnectionError("it was closed before TLS was agreed on")
            tls.receive(received)
        await loop.sock_sendall(sock, tls.to_send())
    except BaseException as error:
        if isinstance(error, ssl.SSLError):
            with contextlib.suppress(OSError):
                sock.send(tls.to_send())  # why we refuse
        sock.close()
        raise
    return tls


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
        ask_for_stamps(sock)
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
