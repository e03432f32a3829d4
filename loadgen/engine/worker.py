"""A worker process: one event loop, one official client, its share of the load.

Invariant: each request taken from the feed, or made from an answer, is announced ("taken") and ends in one "record"
message, whatever happens short of the process's death; the parent accounts for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any

from loadgen.engine.child import Frames, frame
from loadgen.engine.feed import InFlight, take
from loadgen.turns import follow_up
from loadgen.types import NS, ClosedLoop, Load, OpenLoop, Request, RequestError, RequestRecord, Timeouts

_LEAD_NS = 3_000_000
"""An open loop's request is prepared this long before it is due, and held back at the socket."""
_LAG_TICK_S = 0.1
_GOLDEN = 0.6180339887498949
_UNUSED = ("click", "trio")
"""httpx and httpcore import these where they are installed, for their command line and another kind of event loop:
0.2 s of the start of each worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker needs to know, sent to it as its first message."""

    worker: int
    workers: int
    api: str
    host: str | None
    load: Load
    timeouts: Timeouts
    warmup: tuple[Request, ...]
    pipe_fd: int
    payload_fd: int
    in_flight_fd: int


def start_offset_ns(slot: int, concurrency: int) -> int:
    """When a closed loop's slot sends its first request, counted from the common start.

    The first N are spread over 5 ms each, at most one second in all, in the order of the golden
    ratio, so that neither all at once nor a regular comb of requests meets the server.
    """
    return round(min(NS, concurrency * 5_000_000) * (slot * _GOLDEN % 1.0))


def main(sock: socket.socket) -> None:
    """Entry point of the child process."""
    for name in _UNUSED:
        sys.modules[name] = None  # type: ignore[assignment]  # Python's way to say: not installed
    # Imported here, as below: the parent takes Job from this module and has no need of connections.
    from loadgen.wire.connection import TimestampingSelector

    raise_file_limit()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(TimestampingSelector())) as runner:
        runner.run(_work(sock))


def raise_file_limit() -> None:
    """Let this process open as many sockets as it may: many systems begin at 1,024."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not a Unix; or one that allows no more
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _work(sock: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=sock)
    frames = Frames()
    jobs: list[Job] = []
    while not jobs:
        data = await reader.read(1 << 16)
        if not data:
            return
        jobs.extend(frames.feed(data))
    worker = _Worker(jobs[0], writer)
    listener = asyncio.create_task(_listen(reader, frames, worker))
    await worker.run()
    listener.cancel()
    writer.write(frame(("bye",)))
    writer.close()
    await writer.wait_closed()  # the parent may be behind: what it has not read yet must not go with us


async def _listen(reader: asyncio.StreamReader, frames: Frames, worker: _Worker) -> None:
    with contextlib.suppress(ConnectionError):  # a reset, where it was killed with something of ours unread
        while data := await reader.read(1 << 16):
            for message in frames.feed(data):
                match message:
                    case ("start", int(start_ns)):
                        worker.started.set_result(start_ns)
                    case ("stop",):
                        worker.stop()
                    case ("cancel",):
                        worker.cancel()
    os._exit(1)  # the parent is gone: nobody is left to measure for


class _Worker:
    def __init__(self, job: Job, writer: asyncio.StreamWriter) -> None:
        from loadgen.api.sending import chat_api

        self._job = job
        self._writer = writer
        self._api = chat_api(job.api)
        self._client = self._api.make_client(job.host)
        self._counts = InFlight(job.workers, job.in_flight_fd)
        self._stopped = asyncio.Event()
        self._requests: set[asyncio.Task[RequestRecord]] = set()
        self._in_flight = 0
        self._readable: asyncio.Future[None] | None = None
        self.started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """Send nothing more; what is in flight goes on."""
        self._stopped.set()
        self._wake()

    def cancel(self) -> None:
        self.stop()
        for task in self._requests:
            task.cancel()

    async def run(self) -> None:
        await self._prepare()
        self._tell("ready")
        start_ns = await self.started
        lag = asyncio.create_task(self._watch_lag())
        match self._job.load:
            case ClosedLoop() as load:
                await self._closed(load, start_ns)
            case OpenLoop() as load:
                await self._open(load, start_ns)
        lag.cancel()
        await self._client.close()
        self._counts.close()

    async def _prepare(self) -> None:
        """Whatever the first request would otherwise pay for: imports, connections, the client's first call."""
        from loadgen.api.sending import send

        for request in self._job.warmup:
            await send(self._api, self._client, request, self._job.timeouts)
        if isinstance(self._job.load, ClosedLoop):
            slots = len(range(self._job.worker, self._job.load.concurrency, self._job.workers))
            await self._api.preconnect(self._client, slots, self._job.timeouts.connect_s)
        gc.collect()
        gc.freeze()

    async def _closed(self, load: ClosedLoop, start_ns: int) -> None:
        end_ns = None if load.duration_s is None else start_ns + round(load.duration_s * NS)
        slots = range(self._job.worker, load.concurrency, self._job.workers)
        async with asyncio.TaskGroup() as group:
            for slot in slots:
                group.create_task(self._slot(start_ns + start_offset_ns(slot, load.concurrency), end_ns))

    async def _slot(self, first_ns: int, end_ns: int | None) -> None:
        await self._sleep_until(first_ns)
        while not self._stopped.is_set() and (end_ns is None or monotonic_ns() < end_ns):
            taken = await self._take()
            if taken is None:
                return
            self._count(+1)
            await self._conversation(taken[0], None)

    async def _open(self, load: OpenLoop, start_ns: int) -> None:
        async with asyncio.TaskGroup() as group:
            while not self._stopped.is_set() and (taken := await self._take()) is not None:
                request, offset = taken
                assert offset is not None
                due_ns = start_ns + offset
                if not await self._sleep_until(due_ns - _LEAD_NS):
                    self._tell("returned", request.index)
                elif self._is_place_for_one(load.max_in_flight):
                    group.create_task(self._conversation(request, due_ns))
                    await asyncio.sleep(0)  # it is prepared before the next is looked at, also when we are late
                else:
                    group.create_task(self._last_look(request, due_ns, load.max_in_flight))

    async def _last_look(self, request: Request, due_ns: int, limit: int | None) -> None:
        """There was no place when it was to be prepared; there may be one when it is due."""
        if not await self._sleep_until(due_ns):
            self._tell("returned", request.index)
        elif self._is_place_for_one(limit):
            await self._conversation(request, due_ns)
        else:
            error = RequestError("dropped", f"{limit} requests were in flight")
            record = RequestRecord(index=request.index, worker=self._job.worker, due_ns=due_ns, error=error)
            self._tell("record", record)

    def _is_place_for_one(self, limit: int | None) -> bool:
        """Count one more as in flight, if that is within the limit of all workers together."""
        self._count(+1)  # first, and only then looked at: two workers that do so at once never exceed the limit
        if limit is None or self._counts.total() <= limit:
            return True
        self._count(-1)
        return False

    async def _conversation(self, request: Request, due_ns: int | None) -> None:
        """Run one that is counted as in flight, and the turn that follows from its answer: due at once."""
        record = await self._in_own_task(request, due_ns)
        while not self._stopped.is_set() and (after := follow_up(request, record)) is not None:
            self._tell("taken", after.index)
            self._count(+1)
            request, record = after, await self._in_own_task(after, None)

    async def _in_own_task(self, request: Request, due_ns: int | None) -> RequestRecord:
        """Run one that is counted as in flight; ``cancel()`` reaches it, not the loop that sends the next."""
        task = asyncio.create_task(self._one(request, due_ns))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        try:
            return await task
        except asyncio.CancelledError:  # before it had begun, else ``send`` made a record
            error = RequestError("cancelled", "cancelled before it was sent")
            record = RequestRecord(index=request.index, worker=self._job.worker, due_ns=due_ns, error=error)
            self._tell("record", record)
            return record
        finally:
            self._count(-1)

    async def _one(self, request: Request, due_ns: int | None) -> RequestRecord:
        from loadgen.api.sending import send

        job = self._job
        record = await send(self._api, self._client, request, job.timeouts, due_ns=due_ns, worker=job.worker)
        self._tell("record", record)
        return record

    def _count(self, change: int) -> None:
        self._in_flight += change
        self._counts[self._job.worker] = self._in_flight

    async def _take(self) -> tuple[Request, int | None] | None:
        """The next request to send; None when there is none or the load was stopped."""
        while True:
            try:
                taken = take(self._job.pipe_fd, self._job.payload_fd)
            except BlockingIOError:
                if not await self._room():
                    return None
                continue
            if taken is not None:
                self._tell("taken", taken[0].index)
            return taken

    async def _room(self) -> bool:
        """Wait until the feed has something; False when stopped meanwhile."""
        if self._readable is None:
            self._readable = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().add_reader(self._job.pipe_fd, self._wake)
        await self._readable
        return not self._stopped.is_set()

    def _wake(self) -> None:
        """The feed has something, or the load is stopped: all that wait look again."""
        if self._readable is not None:
            asyncio.get_running_loop().remove_reader(self._job.pipe_fd)
            self._readable.set_result(None)
            self._readable = None

    async def _sleep_until(self, instant_ns: int) -> bool:
        """False when the load was stopped before the instant."""
        left = (instant_ns - monotonic_ns()) / NS
        if left > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), left)
        return not self._stopped.is_set()

    async def _watch_lag(self) -> None:
        """Tell once a second how late the event loop was at worst."""
        worst, ticks = 0.0, 0
        while True:
            due = monotonic_ns() + round(_LAG_TICK_S * NS)
            await asyncio.sleep(_LAG_TICK_S)
            worst, ticks = max(worst, (monotonic_ns() - due) / NS), ticks + 1
            if ticks == 10:
                self._tell("lag", worst)
                worst, ticks = 0.0, 0

    def _tell(self, *message: Any) -> None:
        # Never awaited: what the parent does not read yet waits in memory, not in the way of a request.
        self._writer.write(frame(message))
