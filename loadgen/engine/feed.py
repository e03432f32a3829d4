"""A queue that hands each request from the parent to exactly one worker, without a lock.

A request is pickled into an unlinked temporary file; a token with its place goes through a pipe. The kernel reads and
writes a token (at most ``PIPE_BUF`` bytes) atomically, so that workers may share a pipe: whoever is free takes the
next, its end says that there are no more, and its size limits how far ahead requests are made.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import pickle
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, repeat

from loadgen.types import Request

_TOKEN = struct.Struct("<qqqq")  # index, offset in the file, length, due in ns from the start (-1: none)
_COUNT = struct.Struct("<q")
_WRAP = 64 << 20
_AHEAD = 512
"""Requests made ahead for each pipe: enough to bridge a delay of this process, few enough not to delay the start."""


class Incoming:
    """Requests that another thread puts in while a Feed takes them out; ``fileno()`` is readable once there are more.

    Its end is only where ``end()`` was called, however long nothing comes.
    """

    def __init__(self, taken: Callable[[int], None]) -> None:
        """``taken`` is called with the index of each request that a worker takes."""
        self.taken = taken
        self._waiting: deque[tuple[Request, int | None]] = deque()
        self._due: deque[int | None] = deque()
        self._ended = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def put(self, requests: Iterable[tuple[Request, int | None]]) -> None:
        """Add requests, each with when it is due in ns from the start."""
        self._waiting.extend(requests)
        self.wake()

    def end(self) -> None:
        """Say that nothing more will come."""
        self._ended = True
        self.wake()

    def wake(self) -> None:
        """Make ``fileno()`` readable."""
        with contextlib.suppress(BlockingIOError):  # full: it is readable
            os.write(self._write, b"!")

    def fileno(self) -> int:
        return self._read

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)

    @property
    def due(self) -> Iterator[int | None]:
        """When each request is due that ``next`` has returned, in their order."""
        while True:
            yield self._due.popleft()

    def __iter__(self) -> Iterator[Request | None]:
        return self

    def __next__(self) -> Request | None:
        if not self._waiting:  # what comes after this wakes us again
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 1 << 16)
        ended = self._ended
        try:
            request, due = self._waiting.popleft()
        except IndexError:
            if ended:
                raise StopIteration from None
            return None
        self._due.append(due)
        return request


class Feed:
    """The parent's side: call ``fill()`` when ``writer`` has room, and ``taken()`` when a worker says so."""

    def __init__(self, requests: Iterable[Request | None], due: Iterable[int | None] | None, workers: int) -> None:
        """A request that is None may not be handed out yet: it is asked for again while others wait to be taken.

        From an ``Incoming``, whose end is told, it is asked for again in any case.
        """
        self._requests = iter(requests)
        self.incoming = requests if isinstance(requests, Incoming) else None
        self._due: Iterator[int | None] = repeat(None) if due is None else iter(due)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the load
        self.payload_fd = self._file.fileno()
        pipes = [os.pipe() for _ in range(1 if due is None else workers)]
        self._read = [read for read, _ in pipes]
        self._write = [write for _, write in pipes]
        for fd in (*self._read, *self._write):
            os.set_blocking(fd, False)
            if hasattr(fcntl, "F_SETPIPE_SZ"):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _AHEAD * _TOKEN.size)
        self._turn = cycle(self._write)
        self._position = 0
        self._lap_start = 0
        self._pending: tuple[int, bytes] | None = None
        self._untaken: dict[int, int] = {}
        self.waits = False
        """Whether the next request may not be handed out yet: call ``fill()`` after each message."""
        self.ran_dry = False
        """Whether it ended for a request that could not be handed out."""
        self.outstanding: dict[int, int | None] = {}
        """Index -> due (ns from the start) of each request waiting or taken that has no record yet."""

    def reader(self, worker: int) -> int:
        """Return the pipe from which this worker takes: shared in a closed loop, its own in an open one."""
        return self._read[worker % len(self._read)]

    @property
    def writer(self) -> int | None:
        """The pipe to wait on for room; None while there is nothing to write, and once everything is written."""
        if self.waits:
            return None
        return self._pending[0] if self._pending is not None else (self._write[0] if self._write else None)

    def fill(self) -> None:
        """Make requests until the pipe is full or there are none left."""
        self.waits = False
        while self._write:
            if self._pending is None:
                try:
                    request = next(self._requests)
                    if request is None and (self._untaken or self.incoming is not None):
                        self.waits = True
                        return
                    self.ran_dry = request is None
                    entry = None if request is None else (request, next(self._due))
                except StopIteration:
                    entry = None
                if entry is None:
                    return self.end()
                self._pending = (next(self._turn), self._store(*entry))
            try:
                os.write(*self._pending)
            except BlockingIOError:
                return
            self._pending = None

    def taken(self, index: int) -> None:
        self._untaken.pop(index, None)
        if self.incoming is not None:
            self.incoming.taken(index)

    def end(self) -> None:
        """Hand out nothing more: workers find the pipe's end."""
        for fd in self._write:
            os.close(fd)
        self._write = []
        if self._pending is not None:
            self.outstanding.pop(_TOKEN.unpack(self._pending[1])[0])
            self._pending = None

    def left(self) -> Iterator[int]:
        """Hand out nothing more; yield the indices of the requests that nobody took, and now nobody can."""
        self.end()
        for fd in self._read:
            while token := os.read(fd, _TOKEN.size):
                yield _TOKEN.unpack(token)[0]

    def close(self) -> None:
        self.end()
        for fd in self._read:
            os.close(fd)
        self._file.close()

    def _store(self, request: Request, due: int | None) -> bytes:
        data = pickle.dumps(request, pickle.HIGHEST_PROTOCOL)
        self._find_room(len(data))
        os.pwrite(self.payload_fd, data, self._position)
        token = _TOKEN.pack(request.index, self._position, len(data), -1 if due is None else due)
        self._untaken[request.index] = self._position
        self.outstanding[request.index] = due
        self._position += len(data)
        return token

    def _find_room(self, size: int) -> None:
        """Move to where the next request goes: tokens are taken nearly in order, so the file is a ring buffer.

        Untaken requests lie from the oldest up to our position, and wrap round once at most; when they are in the way,
        we append to the file, and wrap only when everything before is taken.
        """
        oldest = next(iter(self._untaken.values()), None)
        if self._position > _WRAP and (oldest is None or (max(_WRAP // 2, self._lap_start) <= oldest < self._position)):
            self._position = self._lap_start = 0
        if oldest is not None and self._position <= oldest < self._position + size:
            self._position = self._lap_start = os.fstat(self.payload_fd).st_size


def take(pipe_fd: int, payload_fd: int) -> tuple[Request, int | None] | None:
    """Take the next request and when it is due, in a worker; None at the end; BlockingIOError if there is none yet."""
    token = os.read(pipe_fd, _TOKEN.size)
    if not token:
        return None
    _, offset, length, due = _TOKEN.unpack(token)
    request = pickle.loads(os.pread(payload_fd, length, offset))
    return request, None if due < 0 else due


class InFlight:
    """The requests in flight of each worker, in shared memory: a worker writes only its own count."""

    def __init__(self, workers: int) -> None:
        """Make room for the counts of so many workers."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._file.truncate(_COUNT.size * workers)
        self._map()

    @classmethod
    def of(cls, fd: int) -> InFlight:
        """Return the counts in a file that another process has made."""
        counts = cls.__new__(cls)
        counts._file = os.fdopen(fd, "r+b")
        counts._map()
        return counts

    def _map(self) -> None:
        self.fd = self._file.fileno()
        self._memory = mmap.mmap(self.fd, 0)
        self._places = memoryview(self._memory).cast("q")

    def __setitem__(self, worker: int, count: int) -> None:
        self._places[worker] = count

    def total(self) -> int:
        return sum(self._places)

    def close(self) -> None:
        self._places.release()
        self._memory.close()
        self._file.close()
