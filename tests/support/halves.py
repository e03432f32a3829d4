"""Each half of a load without the other: a worker whose parent the test plays, and a parent whose workers it plays.

Both run in this process, in threads, and talk over the socket that lies between them in a real load.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import monotonic_ns
from types import ModuleType
from typing import Any

import pytest

import loadgen.engine.local
from loadgen import Readings
from loadgen.engine import Job
from loadgen.engine.child import MessageFramer, frame
from loadgen.engine.feed import Feed, InFlight, take
from loadgen.engine.local_worker import main
from loadgen.types import NS, Load, Request, Timeouts
from tests.support.scripted_server import DONE, SOON, Peer, Scripted, said

WAIT_S = 10.0
"""Only what will never happen is waited for so long."""
OPTIONAL = ("click", "trio")


def until(happened: Callable[[], bool], what: str) -> None:
    tick = threading.Event()
    for _ in range(int(WAIT_S / 0.002)):
        if happened():
            return
        tick.wait(0.002)
    pytest.fail(f"never happened: {what}")


class _End:
    """One end of the socket between a worker and its parent."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(WAIT_S)
        self._frames = MessageFramer()
        self._waiting: list[Any] = []

    def tell(self, *message: Any) -> None:
        self.sock.sendall(frame(message))

    def receive(self) -> Any:
        """The next message; None when the other side has closed."""
        while not self._waiting:
            data = self.sock.recv(1 << 16)
            if not data:
                return None
            for message in self._frames.feed(data):
                self._waiting += message if isinstance(message, list) else [message]
        return self._waiting.pop(0)

    def is_quiet(self) -> bool:
        """Nothing has come that was not heard."""
        return not self._waiting and not select.select([self.sock], [], [], 0)[0]


# A worker


def fill_with_room_for(feed: Feed, room: int) -> None:
    """Fill as if the pipes had room for that many more."""
    real = os.write

    def write(fd: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise BlockingIOError
        room -= 1
        return real(fd, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write)
        feed.fill()


class Alone(_End):
    """A worker, as its parent sees it."""

    def __init__(self, sock: socket.socket, feed: Feed, counts: InFlight, thread: threading.Thread) -> None:
        super().__init__(sock)
        self.feed, self.counts, self.thread = feed, counts, thread
        self.exits: list[int] = []
        self.tidied: list[str] = []
        self.start_ns = 0
        self._passed_over: list[Any] = []

    def start(self, in_s: float = 0.0) -> None:
        assert self.receive() == ("ready",)
        self.start_ns = monotonic_ns() + round(in_s * NS)
        self.tell("start", self.start_ns)

    def receive(self) -> Any:
        """The next message about a request; None when the worker has ended."""
        if self._passed_over:
            return self._passed_over.pop(0)
        while (message := super().receive()) is not None and message[0] == "lag":
            pass
        return message

    def receive_until(self, word: str) -> list[Any]:
        heard = [self.receive()]
        while heard[-1][0] != word:
            heard.append(self.receive())
        return heard

    def receive_lag(self) -> float:
        while (message := super().receive())[0] != "lag":
            self._passed_over.append(message)
        return float(message[1])

    def rest(self) -> list[Any]:
        """All that it says until it ends, which it does by itself."""
        said = list(iter(self.receive, None))
        assert said.pop() == ("bye",)
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        assert self.exits == []
        assert self.counts.total() == 0, "nothing is in flight any more"
        return said


@contextlib.contextmanager
def alone(
    load: Load, host: str | None, requests: Iterable[Request] = (), *, due: list[int] | None = None, worker: int = 0,
    workers: int = 1, warmup: Sequence[Request] = (), timeouts: Timeouts = SOON, filled: bool = True,
    told: bool = True,
) -> Iterator[Alone]:  # fmt: skip
    """A worker that has its job, unless it is not ``told``; the feed is ``filled``, or the test does that."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    ours, theirs = socket.socketpair()

    def work() -> None:
        # Nobody may be there any more for its goodbye.
        with contextlib.closing(theirs), contextlib.suppress(ConnectionError):
            main(theirs, "ollama")

    thread = threading.Thread(target=work, daemon=True)
    feed, counts = Feed(requests, due, workers), InFlight(workers)
    parent = Alone(ours, feed, counts, thread)
    with pytest.MonkeyPatch.context() as patch:
        # It has no process of its own to end or to tidy up.
        patch.setattr(os, "_exit", parent.exits.append)
        patch.setattr(gc, "collect", lambda: parent.tidied.append("collected"))
        patch.setattr(gc, "freeze", lambda: parent.tidied.append("frozen"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, limits[1]), limits[1]))  # where many systems begin
        for name in OPTIONAL:
            patch.setitem(sys.modules, name, ModuleType(name))
        try:
            if filled:
                feed.fill()
            thread.start()
            job = Job(load=load, workers=workers, api="ollama", host=host, timeouts=timeouts, warmup=tuple(warmup))
            if told:
                socket.send_fds(ours, [b"-"], (feed.reader(worker), feed.payload_fd, counts.fd))
                ours.sendall(frame((worker, job)))
            yield parent
        finally:
            with contextlib.suppress(OSError):
                parent.tell("cancel")
            ours.close()
            thread.join(1.0)
            feed.close()
            counts.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def holding() -> Iterator[tuple[Scripted, threading.Semaphore]]:
    """A server that gives an answer for each release of the semaphore."""
    answer = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        while peer.read() is not None:
            if not answer.acquire(timeout=WAIT_S):
                return
            peer.answer(said("a"), DONE)

    with Scripted(script) as server:
        try:
            yield server, answer
        finally:
            answer.release(1000)


# A parent


@dataclass
class Played(_End):
    """What a script has of the worker that it plays; to the parent also its process."""

    number: int
    """How many were started before this one."""
    sock: socket.socket
    pid: int = field(init=False)
    killed: bool = False
    waited_for: bool = False
    warmed: float | None = None
    """The tokens/s of a stream that it saw in the warm-up."""
    among: int | None = None
    """How many workers it was told there are, where the warm-up decides that."""
    place: int = field(init=False)
    """Which of the load's workers it is: that of the one that it replaces."""
    job: Job = field(init=False)
    pipe_fd: int = field(init=False)
    payload_fd: int = field(init=False)
    counts: InFlight = field(init=False)

    def __post_init__(self) -> None:
        super().__init__(self.sock)
        self.pid = (1 << 30) + self.number

    def tell(self, *message: Any) -> None:
        self.sock.sendall(frame([message]))

    def begin(self) -> int:
        """Warmed up: when all start."""
        self.tell("ready")
        word, start_ns = self.receive()
        assert word == "start"
        assert isinstance(start_ns, int)
        return start_ns

    def take(self, *, silently: bool = False) -> int | None:
        """The index of the next request; None at the end of all."""
        while True:
            with contextlib.suppress(BlockingIOError):
                taken = take(self.pipe_fd, self.payload_fd)
                if taken is None:
                    return None
                if not silently:
                    self.tell("taken", taken[0].index)
                return taken[0].index
            assert select.select([self.pipe_fd], [], [], WAIT_S)[0], "neither a request nor the end"

    def settle(self, readings: Readings) -> None:
        """Return when the parent has heard all that was told, and has done what follows."""
        for _ in range(2):  # when the second is heard, all that follows from the first is done
            lag_s = readings.loop_lag_s + 1
            self.tell("lag", lag_s)
            until(lambda lag_s=lag_s: readings.loop_lag_s == lag_s, "the parent hears")  # type: ignore[misc]

    # As a process

    def kill(self) -> None:
        self.killed = True

    def wait(self) -> None:
        self.waited_for = True
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()

    def _is_needed(self) -> bool:
        """Warmed up, it hears how many there are; whoever is not needed, hears nothing any more."""
        if not self.job.adapts:
            return True
        self.tell("warmed", self.warmed)
        told = self.receive()
        assert told is None or told[0] == "workers"
        self.among = None if told is None else told[1]
        return told is not None

    def run(self, script: Callable[[Played], None]) -> None:
        self.thread = threading.Thread(target=self._play, args=(script,), daemon=True)
        self.thread.start()

    def _play(self, script: Callable[[Played], None]) -> None:
        # The other side may be closed at any time: that is how a worker is killed.
        with contextlib.closing(self.sock), contextlib.suppress(BrokenPipeError, ConnectionResetError):
            _, (self.pipe_fd, self.payload_fd, fd), _, _ = socket.recv_fds(self.sock, 1, 3)
            try:
                self.place, self.job = self.receive()
                self.counts = InFlight.of(fd)
                with contextlib.closing(self.counts):
                    if self._is_needed():
                        script(self)
            finally:
                os.close(self.pipe_fd)
                os.close(self.payload_fd)


@contextlib.contextmanager
def played(script: Callable[[Played], None], warmed: Sequence[float | None] = ()) -> Iterator[list[Played]]:
    """Each worker that a load starts here is played by the script; those that were started.

    The first of them saw these tokens/s in the warm-up.

    A load that has ended leaves none of them, and no descriptor.
    """
    started: list[Played] = []
    numbers = count()

    def spawn(*_: str) -> tuple[Played, socket.socket]:
        ours, theirs = socket.socketpair()
        worker = Played(next(numbers), theirs)
        worker.warmed = dict(enumerate(warmed)).get(worker.number)
        started.append(worker)
        worker.run(script)
        return worker, ours

    before = descriptors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loadgen.engine.local, "spawn", spawn)
        yield started
    assert all(worker.killed and worker.waited_for for worker in started)
    assert descriptors() == before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
