"""generate_load(): spawn workers, warm up, start together, yield records as they come.

Invariant: each request handed to a worker ends in exactly one yielded record; a worker that dies
is noticed at once (its socket closes), its requests in flight become ``worker_died``, and a new
worker takes its place.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field, replace
from math import ceil
from time import monotonic_ns
from typing import Any

from loadgen.api import DEFAULT_API
from loadgen.arrivals import due_offsets
from loadgen.engine.child import Frames, frame, spawn
from loadgen.engine.feed import Feed, InFlight
from loadgen.engine.worker import Job
from loadgen.types import NS, ClosedLoop, Load, OpenLoop, Request, RequestError, RequestRecord, Timeouts

_POLL_S = 0.1
_START_DELAY_NS = 20_000_000
_STREAMS_PER_WORKER = 32
_REQUESTS_PER_S_AND_WORKER = 50
_DEATHS_IN_A_ROW = 5
_CANCEL_S = 2.0


class LoadFailed(Exception):
    """Workers die without getting anything done; the load cannot go on."""


@dataclass(slots=True)
class Control:
    """Watch and stop a running load from outside; all fields may be read from another thread."""

    stopping: bool = False
    hurry: bool = False
    """Do not wait for what is in flight."""
    started_ns: int | None = None
    stopped_ns: int | None = None
    """When the workers were told to stop; None where the load ended by itself."""
    in_flight: int = 0
    loop_lag_s: float = 0.0
    """The worst delay of a worker's event loop in the last second or so."""
    workers_died: int = 0
    pids: tuple[int, ...] = ()


def default_workers(load: Load) -> int:
    """One per 32 streams or 50 requests/s, at most one per core."""
    match load:
        case ClosedLoop(concurrency=concurrency):
            wanted = ceil(concurrency / _STREAMS_PER_WORKER)
        case OpenLoop(rate=rate):
            wanted = ceil(rate / _REQUESTS_PER_S_AND_WORKER)
    return max(
        1, min(wanted, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    )


def generate_load(
    requests: Iterable[Request],
    load: Load,
    *,
    count: int | None = None,
    api: str = DEFAULT_API,
    host: str | None = None,
    workers: int | None = None,
    warmup: Sequence[Request] = (),
    timeouts: Timeouts | None = None,
    grace_s: float = 10.0,
    control: Control | None = None,
) -> Iterator[RequestRecord]:
    """Send the requests under the load; yield one record for each, in the order they end.

    ``requests`` is consumed as it is needed, so that it may be endless where the load has a
    duration; an open loop that has none needs ``count``, or requests that know their number, for
    its schedule. ``warmup`` requests are shared out among the workers, sent before the common start,
    and not yielded. Closing the generator ends the workers.
    """
    if workers is None:
        workers = default_workers(load)
    due = None
    if isinstance(load, OpenLoop):
        if count is None and isinstance(requests, Sized):
            count = len(requests)
        due = due_offsets(load, count)
    else:
        workers = min(workers, load.concurrency)
    run = _Load(
        load=load, api=api, host=host, workers=workers, warmup=tuple(warmup), timeouts=timeouts or Timeouts(),
        grace_s=grace_s, control=control or Control(), counts=InFlight(workers), feed=Feed(requests, due, workers),
    )  # fmt: skip
    try:
        yield from run.records()
    finally:
        run.close()


@dataclass(slots=True)
class _Child:
    """One worker process as the parent sees it."""

    worker: int
    process: subprocess.Popen[bytes]
    sock: socket.socket
    frames: Frames = field(default_factory=Frames)
    taken: dict[int, int] = field(default_factory=dict)
    """Index of each request taken and not recorded yet -> when we heard of it."""
    ready: bool = False
    started: bool = False
    finished: bool = False


@dataclass(slots=True, kw_only=True)
class _Load:
    load: Load
    api: str
    host: str | None
    workers: int
    warmup: tuple[Request, ...]
    timeouts: Timeouts
    grace_s: float
    control: Control
    counts: InFlight
    feed: Feed
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    children: dict[int, _Child] = field(default_factory=dict)
    deaths_in_a_row: int = 0
    lags_s: dict[int, float] = field(default_factory=dict)
    cancelled_ns: int | None = None

    def records(self) -> Iterator[RequestRecord]:
        for worker in range(self.workers):
            self._spawn(worker, self.warmup[worker :: self.workers])
        while self.children:
            self._wait_for_room()
            for key, _ in self.selector.select(_POLL_S):
                if key.data is None:
                    self.feed.fill()
                else:
                    yield from self._hear(key.data)
            self.control.in_flight = self.counts.total()
            yield from self._stop_if_asked()
        yield from self._unaccounted()

    def close(self) -> None:
        for child in list(self.children.values()):
            self._bury(child)
        self.control.in_flight = 0
        self.selector.close()
        self.feed.close()
        self.counts.close()

    def _spawn(self, worker: int, warmup: tuple[Request, ...] = ()) -> None:
        pipe_fd = self.feed.reader(worker)
        process, sock = spawn("loadgen.engine.worker:main", fds=(pipe_fd, self.feed.payload_fd, self.counts.fd))
        job = Job(
            worker=worker, workers=self.workers, api=self.api, host=self.host, load=self.load, timeouts=self.timeouts,
            warmup=warmup, pipe_fd=pipe_fd, payload_fd=self.feed.payload_fd, in_flight_fd=self.counts.fd,
        )  # fmt: skip
        child = self.children[worker] = _Child(worker, process, sock)
        self.selector.register(sock, selectors.EVENT_READ, child)
        _tell(child, job)
        self._list_pids()

    def _list_pids(self) -> None:
        self.control.pids = tuple(child.process.pid for child in self.children.values())

    def _wait_for_room(self) -> None:
        """Have the selector watch the pipe that the next request goes into, if any."""
        watched = [key.fd for key in self.selector.get_map().values() if key.data is None]
        wanted = self.feed.writer
        if watched != ([] if wanted is None else [wanted]):
            for fd in watched:
                self.selector.unregister(fd)
            if wanted is not None:
                self.selector.register(wanted, selectors.EVENT_WRITE, None)

    def _hear(self, child: _Child) -> Iterator[RequestRecord]:
        try:
            data = child.sock.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        for message in child.frames.feed(data):
            match message:
                case ("record", RequestRecord() as record):
                    self.deaths_in_a_row = 0
                    child.taken.pop(record.index, None)
                    self.feed.outstanding.pop(record.index, None)
                    yield record
                case ("taken", int(index)):
                    child.taken[index] = monotonic_ns()
                    self.feed.taken(index)
                case ("returned", int(index)):
                    child.taken.pop(index, None)
                    self.feed.outstanding.pop(index, None)
                case ("lag", float(seconds)):
                    self.lags_s[child.worker] = seconds
                    self.control.loop_lag_s = max(self.lags_s.values())
                case ("ready",):
                    child.ready = True
                    self._start()
                case ("bye",):
                    child.finished = True
        if not data:
            yield from self._ended(child)

    def _start(self) -> None:
        """The common start, as soon as all are ready; a late replacement starts at once."""
        if self.control.started_ns is None:
            if not all(child.ready for child in self.children.values()):
                return
            self.control.started_ns = monotonic_ns() + _START_DELAY_NS
        for child in self.children.values():
            if child.ready and not child.started:
                child.started = True
                _tell(child, ("start", self.control.started_ns))

    def _ended(self, child: _Child) -> Iterator[RequestRecord]:
        """A worker's socket closed: it is done, or it died."""
        self._bury(child)
        if child.finished:
            return
        self.control.workers_died += 1
        self.deaths_in_a_row += 1
        for index, heard_ns in child.taken.items():
            yield self._lost(index, heard_ns, child.worker)
        if self.deaths_in_a_row > _DEATHS_IN_A_ROW:
            raise LoadFailed(f"worker processes died {self.deaths_in_a_row} times in a row without finishing a request")
        if not self.control.stopping:
            self._spawn(child.worker)

    def _lost(self, index: int, heard_ns: int | None, worker: int | None = None) -> RequestRecord:
        offset = self.feed.outstanding.pop(index, None)
        started_ns = self.control.started_ns
        due_ns = heard_ns if offset is None or started_ns is None else started_ns + offset
        error = RequestError("worker_died", "the worker process that had this request died")
        return RequestRecord(index=index, worker=worker, due_ns=due_ns, error=error)

    def _unaccounted(self) -> Iterator[RequestRecord]:
        """Requests that a worker took and died before it could say so."""
        for index in self.feed.left():
            self.feed.outstanding.pop(index, None)
        for index in list(self.feed.outstanding):
            yield self._lost(index, None)

    def _stop_if_asked(self) -> Iterator[RequestRecord]:
        if not self.control.stopping:
            return
        now = monotonic_ns()
        if self.control.stopped_ns is None:
            self.control.stopped_ns = now
            self.feed.end()
            self._tell_all(("stop",))
        if self.cancelled_ns is None:
            if self.control.hurry or now - self.control.stopped_ns > self.grace_s * NS:
                self.cancelled_ns = now
                self._tell_all(("cancel",))
        elif now - self.cancelled_ns > _CANCEL_S * NS:
            for child in list(self.children.values()):
                self._bury(child)
                for index in child.taken:
                    yield replace(self._lost(index, None, child.worker), error=RequestError("cancelled", "stopped"))

    def _tell_all(self, message: Any) -> None:
        for child in list(self.children.values()):
            if child.started:
                _tell(child, message)
            else:
                self._bury(child)

    def _bury(self, child: _Child) -> None:
        del self.children[child.worker]
        self._list_pids()
        self.selector.unregister(child.sock)
        child.sock.close()
        child.process.kill()
        child.process.wait()
        self.counts[child.worker] = 0  # what it left would count against the others' max_in_flight for ever


def _tell(child: _Child, message: Any) -> None:
    # A worker that has died is noticed where its socket is read.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        child.sock.sendall(frame(message))
