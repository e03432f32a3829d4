"""What runs on a node of a cluster: the local engine, fed from the driver, its records handed over in batches.

The driver calls ``prepare`` and then ``exchange`` again and again, never two at once: each call brings orders and
requests, and returns what has come of them within a tenth of a second, or as soon as more requests are wanted.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from dataclasses import dataclass, replace
from time import monotonic, monotonic_ns
from urllib.parse import urlsplit

import psutil

from loadgen.engine import Job, LoadFailed, NotReady, Orders, Readings, default_workers, local
from loadgen.engine.clocks import SAME, Echo, Line, on_our_clock
from loadgen.engine.feed import Incoming
from loadgen.engine.look import Target
from loadgen.types import NS, Request, RequestRecord
from loadgen.wire.access import unix_path

_HANDSHAKES = 5
_REACH_S = 5.0
_PORTS = {"http": 80, "https": 443}
_ALIVE_S = 1.0
BATCH = 256
"""Records that wait for no further one."""

Due = int | None
"""When a request is due, in ns from the common start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a node answers to its job; the echo is for the clocks."""

    workers: int
    cores: int
    port: int
    token: bytes
    server_rtt_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Down:
    """What the driver sends in one exchange."""

    requests: tuple[tuple[Request, Due], ...] = ()
    line: Line = SAME
    """The driver's clock - this node's."""
    start_ns: int | None = None
    """The common start on the driver's clock, once it is set."""
    end: bool = False
    """Whether no further request will come."""
    stop: bool = False
    hurry: bool = False
    low: int | None = None
    """Answer at once when as few requests wait, beyond those that free slots take; None: not for that."""
    hold_s: float = 0.1
    """Answer after so long in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """What a node answers; instants are on the driver's clock."""

    records: tuple[RequestRecord, ...] = ()
    taken: tuple[int, ...] = ()
    """Requests that workers have taken since the last answer, and turns that followed."""
    free: int = 0
    """Slots of a closed loop without a request."""
    in_flight: int = 0
    loop_lag_s: float = 0.0
    cpu_s: float = 0.0
    workers: int = 0
    """The worker processes that send, once that is known."""
    stream_tokens_per_s: float | None = None
    """Of one stream in the warm-up, where the number of workers depends on it."""
    workers_died: int = 0
    ready: bool = False
    ended: bool = False
    failure: str | None = None
    """Why the load failed on this node, if it did."""


class Agent:
    """A node's side of a load."""

    def __init__(self, name: str, echo_address: str) -> None:
        """``name`` is what the records say; ``echo_address`` the one at which the driver knows this node."""
        self._name = name
        self._echo = Echo(echo_address)
        self._changed = threading.Condition()
        self._incoming = Incoming(self._on_taken)
        self._orders = Orders(start_ns=None)
        self._readings = Readings()
        self._records: list[RequestRecord] = []
        self._taken: list[int] = []
        self._in_flight: set[int] = set()
        self._put: set[int] = set()
        """Requests from the driver that no worker has taken."""
        self._slots = 0
        self._failure: str | None = None
        self._ended = False
        self._cpu_before_s = 0.0
        self._processes: dict[int, psutil.Process] = {}
        self._cpu_of: dict[int, float] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._end_with, args=[os.getppid()], name="parent-watch", daemon=True).start()

    def prepare(self, job: Job, workers: int | None) -> Prepared:
        """Start the local engine, up to where its workers wait for the common start; NotReady says what is missing."""
        try:
            job = replace(job, access=job.access.from_environment(os.environ))
        except ValueError as error:
            raise NotReady(f"{error} there") from None
        rtt_s = handshake_s(job.host)
        self._slots = len(job.own_slots)
        chosen = default_workers(job.own_load) if workers is None else workers
        job = replace(job, workers=min(chosen, self._slots) if self._slots else chosen,
                      adapts=workers is None and self._slots > 0)  # fmt: skip
        self._thread = threading.Thread(target=self._run, args=[job], name="load", daemon=True)
        self._thread.start()
        return Prepared(workers=job.workers, cores=os.cpu_count() or 1, port=self._echo.port, token=self._echo.token,
                        server_rtt_s=rtt_s)  # fmt: skip

    def exchange(self, down: Down) -> Up:
        """Take orders and requests; return what has happened."""
        if down.start_ns is not None and self._orders.start_ns is None:
            self._orders.start_ns = down.line.theirs(down.start_ns)
            self._cpu_before_s = self._cpu_s()
        self._orders.stop, self._orders.hurry = down.stop, down.hurry
        with self._changed:
            self._put.update(request.index for request, _ in down.requests)
        self._incoming.put(down.requests)
        if down.end:
            self._incoming.end()
        self._wait(down)
        with self._changed:
            records, self._records = self._records, []
            taken, self._taken = self._taken, []
            ended, in_flight = self._ended, len(self._in_flight)
        return Up(
            records=tuple(on_our_clock(record, down.line, self._name) for record in records), taken=tuple(taken),
            free=max(0, self._slots - in_flight), in_flight=in_flight, loop_lag_s=self._readings.loop_lag_s,
            cpu_s=self._cpu_s() - self._cpu_before_s, workers_died=self._readings.workers_died,
            workers=self._readings.workers, stream_tokens_per_s=self._readings.stream_tokens_per_s,
            ready=self._readings.ready, ended=ended, failure=self._failure,
        )  # fmt: skip

    def close(self) -> None:
        """End the load at once, and the echo."""
        self._closed.set()
        self._orders.stop = self._orders.hurry = True
        self._incoming.wake()
        if self._thread is not None:
            self._thread.join()
        self._echo.close()
        self._incoming.close()

    def _end_with(self, parent: int) -> None:
        """End this process, and so its workers, once the one that started it is gone: Ray's own end may hang then."""
        while os.getppid() == parent:
            if self._closed.wait(_ALIVE_S):
                return
        os._exit(1)

    def _run(self, job: Job) -> None:
        try:
            for record in local.records(self._incoming, self._incoming.due, job, self._orders, self._readings):
                with self._changed:
                    self._records.append(record)
                    self._in_flight.discard(record.index)
                    self._changed.notify()
        except LoadFailed as error:
            self._failure = str(error)
        except Exception as error:  # the thread has nobody else to tell
            self._failure = f"{type(error).__name__}: {error}"
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def _on_taken(self, index: int) -> None:
        with self._changed:
            self._put.discard(index)
            self._taken.append(index)
            self._in_flight.add(index)
            self._changed.notify()

    def _wait(self, down: Down) -> None:
        """Wait until there is a reason to answer."""
        until = monotonic() + down.hold_s
        with self._changed:
            while (left_s := until - monotonic()) > 0 and not self._has_news(down):
                self._changed.wait(left_s)

    def _has_news(self, down: Down) -> bool:
        if len(self._records) >= BATCH or self._ended:
            return True
        free = max(0, self._slots - len(self._in_flight))
        return down.low is not None and len(self._put) - free <= down.low

    def _cpu_s(self) -> float:
        """Return the processor time of this process and its workers, those that have ended included."""
        for pid in (os.getpid(), *self._readings.pids):
            try:
                times = self._processes.setdefault(pid, psutil.Process(pid)).cpu_times()
                self._cpu_of[pid] = times.user + times.system
            except psutil.Error:
                self._processes.pop(pid, None)
        return sum(self._cpu_of.values())


def target_of(host: str | None) -> Target | None:
    """Return host and port of a server's address, or the path of its socket and None; None for the default."""
    if not host:
        return None
    if (path := unix_path(host)) is not None:
        return path, None
    place = urlsplit(host if "://" in host else f"http://{host}")
    return place.hostname or "", place.port or _PORTS.get(place.scheme, 80)


def handshake_s(host: str | None) -> float | None:
    """Return the shortest of some TCP handshakes with the server; None where there is nothing to measure."""
    found: list[int] = []
    name, port = target_of(host) or ("", None)
    if port is not None:
        with contextlib.suppress(OSError):  # whoever sends will see
            for _ in range(_HANDSHAKES):
                began_ns = monotonic_ns()
                socket.create_connection((name, port), _REACH_S).close()
                found.append(monotonic_ns() - began_ns)
    return min(found) / NS if found else None
