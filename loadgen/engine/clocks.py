"""Two machines' clocks: how far they are apart, by four timestamps over a TCP echo, and how they drift.

A question carries no time: its sender notes when it was sent and when the answer came, the echo when it was received
and answered. Whatever the way took in each direction, the offset is then known to half the round trip, so that the
shortest of some counts. Clocks are ``time.monotonic_ns``, which no one sets. All but ``Echo`` and ``ask`` is pure.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic_ns

from loadgen.types import RequestRecord

PROBES = 24
"""Round trips of one measurement."""
TOKEN_BYTES = 16
_STAMPS = struct.Struct("<qq")
_REMEMBERED = 12
"""Measurements that the drift is taken from: two minutes of them."""
_PROBE_TIMEOUT_S = 5.0
_BACKLOG = 4
_ASTRAY = 50e-6
"""How far a clock may go astray, unmeasured, from what was known of its drift: as much as two quartzes do."""
_INSTANTS = (
    "due_ns", "sent_ns", "connected_ns", "first_thinking_ns", "first_answer_ns", "first_tool_call_ns", "end_ns"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Probe:
    """One round trip: sent and back on our clock, received and answered on the other's."""

    sent_ns: int
    received_ns: int
    answered_ns: int
    back_ns: int

    @property
    def round_trip_ns(self) -> int:
        """How long it was on the way."""
        return (self.back_ns - self.sent_ns) - (self.answered_ns - self.received_ns)

    @property
    def offset_ns(self) -> int:
        """Our clock - the other's, if both ways took as long."""
        return ((self.sent_ns - self.received_ns) + (self.back_ns - self.answered_ns)) // 2

    @property
    def bound_ns(self) -> int:
        """By how much the offset may be off at most."""
        return -(-self.round_trip_ns // 2)

    @property
    def at_ns(self) -> int:
        """When it was, on the other's clock."""
        return (self.received_ns + self.answered_ns) // 2


def shortest(probes: Sequence[Probe]) -> Probe:
    """Return the probe with the smallest round trip."""
    return min(probes, key=lambda probe: probe.round_trip_ns)


@dataclass(frozen=True, slots=True)
class Line:
    """Our clock - the other's, which changes evenly: ``offset_ns`` at ``at_ns`` on the other's clock."""

    at_ns: int = 0
    offset_ns: int = 0
    drift: float = 0.0
    """Nanoseconds that the offset grows in each of the other's."""

    def offset_at(self, other_ns: int) -> int:
        return self.offset_ns + round(self.drift * (other_ns - self.at_ns))

    def ours(self, other_ns: int) -> int:
        """Return an instant of the other's clock on ours."""
        return other_ns + self.offset_at(other_ns)

    def theirs(self, our_ns: int) -> int:
        """Return an instant of our clock on the other's."""
        since_ns = our_ns - self.offset_ns - self.at_ns
        return self.at_ns + round(since_ns / (1 + self.drift))


SAME = Line()
"""One clock."""


@dataclass(slots=True)
class Clock:
    """The other's clock as it is followed: each measurement corrects the line, and shows how wrong it had become."""

    line: Line = SAME
    error_ns: int = 0
    """The largest error that any measurement leaves possible, of itself and of the line before it."""
    round_trip_ns: int = 0
    """The shortest of the last measurement."""
    lost_ns: int | None = None
    """Since when nobody needs it; None: it is followed."""
    _seen: list[Probe] = field(default_factory=list)

    def measured(self, probes: Sequence[Probe]) -> None:
        """Follow one measurement."""
        best = shortest(probes)
        strayed_ns = abs(self.line.offset_at(best.at_ns) - best.offset_ns) if self._seen else 0
        self.error_ns = max(self.error_ns, strayed_ns + best.bound_ns)
        self.round_trip_ns = best.round_trip_ns
        self._seen = [*self._seen[1 - _REMEMBERED :], best]
        self.line = fitted(self._seen)

    def error_at(self, our_ns: int) -> int:
        """Return by how much instants may be off by then: the more, the longer nothing was measured."""
        if not self._seen:
            return self.error_ns
        last = self._seen[-1]
        until_ns = our_ns if self.lost_ns is None else self.lost_ns
        return max(self.error_ns, last.bound_ns + round(_ASTRAY * max(0, until_ns - last.back_ns)))


def fitted(seen: Sequence[Probe]) -> Line:
    """Return the line through measurements, in which a shorter round trip counts for more; it ends in the last one."""
    last = seen[-1]
    weights = [1 / max(1, probe.round_trip_ns) ** 2 for probe in seen]
    total = sum(weights)
    ats = [float(probe.at_ns - last.at_ns) for probe in seen]
    offsets = [float(probe.offset_ns - last.offset_ns) for probe in seen]
    at = sum(w * x for w, x in zip(weights, ats, strict=True)) / total
    offset = sum(w * y for w, y in zip(weights, offsets, strict=True)) / total
    spread = sum(w * (x - at) ** 2 for w, x in zip(weights, ats, strict=True))
    drift = 0.0
    if spread:
        drift = sum(w * (x - at) * (y - offset) for w, x, y in zip(weights, ats, offsets, strict=True)) / spread
    return Line(last.at_ns, last.offset_ns + round(offset - drift * at), drift)


def on_our_clock(record: RequestRecord, line: Line, node: str | None = None) -> RequestRecord:
    """Return a record of the node with its instants on our clock.

    All of them are moved by one offset, so that no duration changes.
    """
    moment_ns = next((ns for ns in (record.sent_ns, record.due_ns, record.end_ns) if ns is not None), line.at_ns)
    offset_ns = line.offset_at(moment_ns)
    instants = {name: at_ns + offset_ns for name in _INSTANTS if (at_ns := getattr(record, name)) is not None}
    return replace(record, chunk_ns=tuple(at_ns + offset_ns for at_ns in record.chunk_ns), node=node, **instants)


class Echo:
    """Answers probes on one address, to whoever knows the token, until it is closed."""

    def __init__(self, address: str, clock: Callable[[], int] = monotonic_ns) -> None:
        self.token = secrets.token_bytes(TOKEN_BYTES)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.socket(family)
        self._listener.bind((address, 0))
        self._listener.listen(_BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._clock = clock
        threading.Thread(target=self._serve, name="clock-echo", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # else the thread would not notice
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=[connection], name="clock-echo", daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_PROBE_TIMEOUT_S)
            if not secrets.compare_digest(_exactly(connection, TOKEN_BYTES), self.token):
                return
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while connection.recv(1):
                received_ns = self._clock()
                connection.sendall(_STAMPS.pack(received_ns, self._clock()))


def reach(address: str, port: int, token: bytes) -> socket.socket:
    """Return a connection to an echo; OSError if there is none."""
    connection = socket.create_connection((address, port), _PROBE_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(token)
    return connection


def ask(connection: socket.socket, clock: Callable[[], int] = monotonic_ns) -> Probe:
    """Make one round trip; OSError if the echo is gone."""
    sent_ns = clock()
    connection.sendall(b"?")
    stamps, back_ns = _exactly(connection, _STAMPS.size), clock()
    received_ns, answered_ns = _STAMPS.unpack(stamps)
    return Probe(sent_ns, received_ns, answered_ns, back_ns)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := connection.recv(size - len(data))):
            raise ConnectionResetError("the clock's echo closed the connection")
        data += more
    return data


class Watch:
    """A thread that measures the clocks of some echoes: once before ``begin`` returns, then after 1, 2, 4 s and more,
    every 10 s at last, and once more in ``end``."""

    def __init__(self, echoes: Sequence[tuple[str, int, bytes]]) -> None:
        """Each echo is given by its address, port and token."""
        self.clocks: Sequence[Clock] = [Clock() for _ in echoes]
        self._echoes = echoes
        self._connections: list[socket.socket | None] = [None] * len(echoes)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock-watch", daemon=True)

    def begin(self) -> None:
        """Measure each clock; OSError if an echo cannot be reached."""
        for number, echo in enumerate(self._echoes):
            self._connections[number] = reach(*echo)
        self.measure()
        self._thread.start()

    def measure(self) -> None:
        """Measure each clock that is followed and answers; the next measurement tries again to reach the others."""
        for number, clock in enumerate(self.clocks):
            if clock.lost_ns is not None:
                continue
            connection = self._connections[number]
            try:
                if connection is None:
                    connection = self._connections[number] = reach(*self._echoes[number])
                clock.measured([ask(connection) for _ in range(PROBES)])
            except OSError:  # a late answer would be taken for the next one's
                self._connections[number] = None
                if connection is not None:
                    connection.close()

    def end(self) -> None:
        """Measure for the last time, and close."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
            self.measure()
        for connection in self._connections:
            if connection is not None:
                connection.close()

    def _run(self) -> None:
        pause_s = 1.0
        while not self._ended.wait(pause_s):
            self.measure()
            pause_s = min(2 * pause_s, 10.0)


def drift_ppm(line: Line) -> float:
    """Return by how many parts in a million the other's clock goes slower than ours."""
    return line.drift * 1e6
