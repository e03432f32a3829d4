"""When the kernel received what was read, and how late this process was: stamps, and what they may be off by.

The kernel stamps by the wall clock; ``KernelClock`` maps that to the monotonic clock and notices when it was set.
``TimestampingSelector`` knows since when what it found may have been readable, by the time that this thread waited for
a processor, which Linux counts.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import sys
from collections.abc import Callable
from time import monotonic_ns, sleep, time_ns
from typing import Any

from loadgen.types import NS

_SO_TIMESTAMPNS = 35 if sys.platform == "linux" else None
_TIMESPEC = struct.Struct("@qq")
ANCILLARY = socket.CMSG_SPACE(_TIMESPEC.size)
"""Bytes that ``recvmsg`` needs for the kernel's stamp."""
_SCHEDSTAT = "/proc/thread-self/schedstat"
"""Nanoseconds on a processor, nanoseconds waited for one, and how often it was given one."""
_U32 = struct.Struct("@I")
_RESENT_AT, _OUT_OF_ORDER_AT = 100, 224
"""Where ``struct tcp_info`` has total_retrans and rcv_ooopack."""
_SAME_INSTANT_NS = 20_000
_SLEPT_NS = 200_000
"""A ``select`` that took longer than this, besides waiting for a processor, slept until something was readable."""
_PAUSE_NS = 700_000
"""How long a busy selector leaves things alone: waking up costs more than a chunk, and the kernel keeps its instant."""
_SOON_S = 0.005
"""It does not pause while a timer is due so soon."""
_SPOILS, _SPOILT, _MOST_SPOILT = 20, 40, 2000
"""It does not pause either where chunks come so fast that several are read at once: each such read counts for so many
others, up to a limit, and it pauses while the count is low."""


def ask_for_stamps(sock: socket.socket) -> None:
    """Have the kernel stamp what the socket receives, where it can."""
    if _SO_TIMESTAMPNS is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def troubles(sock: socket.socket) -> tuple[int, int] | None:
    """Return how many segments this end sent again, and how many came to it out of order; None where nobody tells."""
    if sys.platform != "linux":
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _OUT_OF_ORDER_AT + 4)
        return _U32.unpack_from(info, _RESENT_AT)[0], _U32.unpack_from(info, _OUT_OF_ORDER_AT)[0]
    except (OSError, struct.error):  # not TCP, or a kernel before 5.4
        return None


class TimestampingSelector(selectors.DefaultSelector):
    """Notes since when what it found may have been readable: since its last call, or since it woke up."""

    readable_since_ns = 0
    """Nothing that the last call found was readable before this instant."""
    found_before_ns = 0
    """The same for the call before: a task that is woken by what one call found runs after the next."""
    processor_wait_ns: int | None = None
    """How long this thread waited for a processor in the last call, or since the one before if it had no time to
    sleep; None: unknown."""
    _looked_ns = 0
    _found = False
    _spoilt = 0

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[int, Callable[[], object]] = {}
        """By descriptor: what reads from it as soon as it is found readable, past the event loop, for which each event
        is a handle in a queue."""
        self._schedstat: int | None = None
        with contextlib.suppress(OSError):
            self._schedstat = os.open(_SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
        self._waited_ns = self._waited_so_far_ns() or 0

    def select(self, timeout: float | None = None) -> Any:
        if timeout != 0:
            self._waited_ns = self._waited_so_far_ns() or 0
        if self._found and self._spoilt < _SPOILT and (timeout is None or timeout > _SOON_S):
            pause_ns = self._looked_ns + _PAUSE_NS - monotonic_ns()
            if pause_ns > 0:
                sleep(pause_ns / NS)
                timeout = None if timeout is None else timeout - pause_ns / NS
        entered_ns = monotonic_ns()
        found = super().select(timeout)
        self._found = bool(found)
        waited_ns, now = self._waited_so_far_ns(), monotonic_ns()
        wait_ns = 0
        if waited_ns is not None:
            self.processor_wait_ns = wait_ns = waited_ns - self._waited_ns
            self._waited_ns = waited_ns
        self.found_before_ns = self.readable_since_ns
        slept = timeout != 0 and now - entered_ns - wait_ns > _SLEPT_NS
        if not slept:
            self.readable_since_ns = self._looked_ns
        else:
            self.readable_since_ns = entered_ns if waited_ns is None else max(entered_ns, now - wait_ns)
        self._looked_ns = now
        left = []
        for key, events in found:
            read = self.readers.get(key.fd) if events == selectors.EVENT_READ else None
            if read is None:
                left.append((key, events))
            else:
                read()
        return left

    def note_read(self, chunks: int) -> None:
        """Note how many chunks one read brought: of several, all but the last have lost their instants."""
        self._spoilt = min(_MOST_SPOILT, self._spoilt + _SPOILS) if chunks > 1 else max(0, self._spoilt - 1)

    def close(self) -> None:
        super().close()
        if self._schedstat is not None:
            os.close(self._schedstat)
            self._schedstat = None

    def _waited_so_far_ns(self) -> int | None:
        return None if self._schedstat is None else int(os.pread(self._schedstat, 64, 0).split()[1])


class KernelClock:
    """The kernel's receive stamps of one connection as instants of the monotonic clock."""

    __slots__ = ("_asked_ns", "_last_ns", "_looked_ns", "_offset_ns", "stepped")

    def __init__(self) -> None:
        self.stepped = False
        """Whether the last read had a stamp that cannot be right: the wall clock was set."""
        self.look()

    def look(self) -> None:
        """Note how the two clocks stand to each other when a request is sent: no stamp of its answer is earlier."""
        now, wall = _clocks()
        self._offset_ns, self._looked_ns = wall - now, now
        self._asked_ns = self._last_ns = now

    def received_ns(self, ancillary: list[tuple[int, int, bytes]]) -> tuple[int | None, int]:
        """Return when the kernel received what was just read, and now; None without a stamp that can be right.

        A stamp is right if the wall clock was not set between it and this read: it may have moved by 1 % of the time
        since the last read, as where it is slowed or sped up. No stamp is before the request or after now, nor before
        that of what was received before it: what a lost segment held up came when that did.
        """
        now, wall = _clocks()
        moved_ns, since_ns = abs(wall - now - self._offset_ns), now - self._looked_ns
        self._offset_ns, self._looked_ns = wall - now, now
        received_ns = _stamp(ancillary)
        self.stepped = False
        if received_ns is None:
            return None, now
        received_ns += now - wall
        self.stepped = moved_ns > 2 * _SAME_INSTANT_NS + since_ns // 100 or not (
            self._asked_ns - 2 * _SAME_INSTANT_NS <= received_ns <= now + _SAME_INSTANT_NS
        )
        if self.stepped:
            return None, now
        self._last_ns = received_ns = min(now, max(received_ns, self._last_ns))
        return received_ns, now


def _stamp(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """Return the kernel's stamp on the wall clock; None if it gave none."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return int(seconds * NS + nanoseconds)
    return None


def _clocks() -> tuple[int, int]:
    """Return monotonic and wall time of one instant; read again if this process was preempted between the two."""
    now, wall = monotonic_ns(), time_ns()
    for _ in range(2):
        if monotonic_ns() - now < _SAME_INSTANT_NS:  # nearly always
            break
        now, wall = monotonic_ns(), time_ns()
    return now, wall
