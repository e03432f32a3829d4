"""The engine of one machine: spawn worker processes (``local_worker``), start them together, yield their records.

A worker that dies is noticed at once (its socket closes): its requests in flight become ``worker_died``, and a new
worker replaces it. Processes may be started ahead of a load (``spare_workers``): what they import takes 0.3 s.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from time import monotonic_ns, sleep
from typing import Any

from loadgen.engine import Job, LoadFailed, Orders, Readings, default_workers
from loadgen.engine.child import MessageFramer, frame, spawn
from loadgen.engine.feed import Feed, InFlight
from loadgen.types import NS, ClosedLoop, Request, RequestError, RequestRecord

_POLL_S = 0.1
_GATHER_S = 0.02
"""How long messages gather in a closed loop, as records do in a worker: to wake up for each would take most of what a
record costs this process. Requests are made further ahead than that."""
_START_DELAY_NS = 20_000_000
_DEATHS_IN_A_ROW = 5
_CANCEL_S = 2.0
_DIED = RequestError("worker_died", "the worker process that had this request died")
_STOPPED = RequestError("cancelled", "stopped")
_Process = tuple[subprocess.Popen[bytes], socket.socket]
_SPARE: list[_Process] = []
"""Worker processes that have no load yet."""


@contextlib.contextmanager
def spare_workers(many: int, api: str) -> Iterator[None]:
    """Have so many worker processes ready for the loads of this process in the ``with`` block."""
    with contextlib.suppress(OSError):  # no memory or processes: the load says so where it needs them
        _SPARE.extend(_process(api) for _ in range(many - len(_SPARE)))
    try:
        yield
    finally:
        while _SPARE:
            process, sock = _SPARE.pop()
            sock.close()
            process.kill()
            process.wait()


def _process(api: str) -> _Process:
    return spawn("loadgen.engine.local_worker:main", api)


def records(
    requests: Iterable[Request | None], due: Iterable[int | None] | None, job: Job, orders: Orders, readings: Readings
) -> Iterator[RequestRecord]:
    """Run the load in ``job.workers`` processes of this machine."""
    most = max(job.workers, os.cpu_count() or 1) if job.adapts else job.workers
    run = _Load(job, orders, readings, InFlight(most), Feed(requests, due, job.workers))
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
    framer: MessageFramer = field(default_factory=MessageFramer)
    taken: dict[int, int] = field(default_factory=dict)
    """Index of each request taken but not recorded yet -> when the worker reported that."""
    warmed: bool = False
    told: bool = False
    """Whether it knows how many workers there are."""
    ready: bool = False
    started: bool = False
    finished: bool = False


@dataclass(slots=True)
class _Load:
    job: Job
    orders: Orders
    readings: Readings
    counts: InFlight
    feed: Feed
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    children: dict[int, _Child] = field(default_factory=dict)
    deaths_in_a_row: int = 0
    lags_s: dict[int, float] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    """Tokens/s of a stream in the warm-up of each worker."""
    cancelled_ns: int | None = None

    def records(self) -> Iterator[RequestRecord]:
        self.readings.workers = 0 if self.job.adapts else self.job.workers
        for worker in range(self.job.workers):
            self._spawn(worker, self.job)
        if self.feed.incoming is not None:
            self.selector.register(self.feed.incoming, selectors.EVENT_READ, self.feed)
        while self.children:
            self._watch_writer()
            if self._may_gather:
                sleep(_GATHER_S)
            for key, _ in self.selector.select(_POLL_S):
                if isinstance(key.data, _Child):
                    yield from self._receive(key.data)
                else:
                    self.feed.fill()
            if self.feed.waits:
                self.feed.fill()
            self._adapt()
            self._start()
            self.readings.ran_dry = self.feed.ran_dry
            self.readings.in_flight = self.counts.total()
            if self.orders.enough:
                self._discard_untaken()
            yield from self._stop_if_asked()
        yield from self._unaccounted()

    @property
    def _may_gather(self) -> bool:
        """Whether messages may wait: not where the work for several at once would keep a worker from sending when a
        request is due, nor where requests come from elsewhere or wait for records."""
        is_closed = isinstance(self.job.load, ClosedLoop)
        return is_closed and self.readings.started_ns is not None and self.feed.incoming is None and not self.feed.waits

    def close(self) -> None:
        for child in list(self.children.values()):
            self._reap(child)
        self.readings.in_flight = 0
        self.selector.close()
        self.feed.close()
        self.counts.close()

    def _spawn(self, worker: int, job: Job) -> None:
        self._watch_writer()  # a pipe that was closed may have had the number that the socket gets
        process, sock = _SPARE.pop(0) if _SPARE else _process(job.api)
        child = self.children[worker] = _Child(worker, process, sock)
        self.selector.register(sock, selectors.EVENT_READ, child)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(sock, [b"-"], (self.feed.reader(worker), self.feed.payload_fd, self.counts.fd))
        _send(child, (worker, job))
        self._list_pids()

    def _list_pids(self) -> None:
        self.readings.pids = tuple(child.process.pid for child in self.children.values())

    def _watch_writer(self) -> None:
        """Have the selector watch the pipe for the next request, if any."""
        watched = [key.fd for key in self.selector.get_map().values() if key.data is None]
        wanted = self.feed.writer
        if watched != ([] if wanted is None else [wanted]):
            for fd in watched:
                self.selector.unregister(fd)
            if wanted is not None:
                self.selector.register(wanted, selectors.EVENT_WRITE, None)

    def _receive(self, child: _Child) -> Iterator[RequestRecord]:
        try:
            data = child.sock.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        for message in chain.from_iterable(child.framer.feed(data)):
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
                    self.readings.loop_lag_s = max(self.lags_s.values())
                case ("warmed", rate):
                    child.warmed = True
                    self.rates = [*self.rates, *([] if rate is None else [rate])]
                case ("ready",):
                    child.ready = True
                case ("bye",):
                    child.finished = True
        if not data:
            yield from self._on_exit(child)

    def _adapt(self) -> None:
        """Once the warm-up is done, have as many workers as what it saw asks for."""
        if self.readings.workers == 0 and self.children and all(child.warmed for child in self.children.values()):
            self.readings.stream_tokens_per_s = max(self.rates, default=None)
            self.readings.workers = many = default_workers(self.job.own_load, self.readings.stream_tokens_per_s)
            for child in [child for child in self.children.values() if child.worker >= many]:
                self._reap(child)
            for worker in range(len(self.children), many):
                self._spawn(worker, replace(self.job, warmup=()))
        for child in self.children.values():
            if child.warmed and not child.told and self.readings.workers:
                child.told = True
                _send(child, ("workers", self.readings.workers))

    def _start(self) -> None:
        """Start all workers together once they are ready and may; a later replacement starts at once."""
        if self.readings.started_ns is None:
            self.readings.ready = all(child.ready for child in self.children.values())
            if not self.readings.ready or self.orders.start_ns is None or not self.children:
                return
            self.readings.started_ns = max(self.orders.start_ns, monotonic_ns() + _START_DELAY_NS)
        for child in self.children.values():
            if child.ready and not child.started:
                child.started = True
                _send(child, ("start", self.readings.started_ns))

    def _on_exit(self, child: _Child) -> Iterator[RequestRecord]:
        """Handle a worker whose socket closed: it is done, or it died."""
        self._reap(child)
        if child.finished:
            return
        self.readings.workers_died += 1
        self.deaths_in_a_row += 1
        for index, heard_ns in child.taken.items():
            yield self._lost_record(index, heard_ns, child.worker)
        if self.deaths_in_a_row > _DEATHS_IN_A_ROW:
            raise LoadFailed(f"worker processes died {self.deaths_in_a_row} times in a row without finishing a request")
        if not self.orders.stop:
            self._spawn(child.worker, replace(self.job, warmup=()))

    def _lost_record(
        self, index: int, heard_ns: int | None, worker: int | None = None, error: RequestError = _DIED
    ) -> RequestRecord:
        offset = self.feed.outstanding.pop(index, None)
        started_ns = self.readings.started_ns
        due_ns = heard_ns if offset is None or started_ns is None else started_ns + offset
        return RequestRecord(index=index, worker=worker, due_ns=due_ns, error=error)

    def _discard_untaken(self) -> None:
        """Take back what no worker has taken yet: they take in order, so that no index is left out."""
        for index in self.feed.left():
            self.feed.outstanding.pop(index, None)

    def _unaccounted(self) -> Iterator[RequestRecord]:
        """Yield the requests that a worker took but died before it could report that."""
        self._discard_untaken()
        for index in list(self.feed.outstanding):
            yield self._lost_record(index, None)

    def _stop_if_asked(self) -> Iterator[RequestRecord]:
        if not self.orders.stop:
            return
        now = monotonic_ns()
        if self.readings.stopped_ns is None:
            self.readings.stopped_ns = now
            self.feed.end()
            self._send_all(("stop",))
        if self.cancelled_ns is None:
            if self.orders.hurry or now - self.readings.stopped_ns > self.job.grace_s * NS:
                self.cancelled_ns = now
                self._send_all(("cancel",))
        elif now - self.cancelled_ns > _CANCEL_S * NS:
            for child in list(self.children.values()):
                self._reap(child)
                for index in child.taken:
                    yield self._lost_record(index, None, child.worker, _STOPPED)

    def _send_all(self, message: Any) -> None:
        for child in list(self.children.values()):
            if child.started:
                _send(child, message)
            else:
                self._reap(child)

    def _reap(self, child: _Child) -> None:
        del self.children[child.worker]
        self._list_pids()
        self.selector.unregister(child.sock)
        child.sock.close()
        child.process.kill()
        child.process.wait()
        self.counts[child.worker] = 0  # else its count would use up the others' max_in_flight


def _send(child: _Child, message: Any) -> None:
    # A dead worker is handled where its socket is read.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        child.sock.sendall(frame(message))
