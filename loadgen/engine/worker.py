"""One worker's share of a load, without processes, pipes or sockets: three callables connect it to its engine.

Each request that is taken, or follows from an answer, is announced ("taken") and ends in one "record" or "returned",
unless the process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from time import monotonic_ns

from loadgen.engine import Job
from loadgen.turns import follow_up
from loadgen.types import NS, ClosedLoop, OpenLoop, Request, RequestError, RequestRecord

Taken = tuple[Request, int | None]
"""A request, and when it is due in ns from the common start."""
Take = Callable[[], Taken | None]
"""Returns the next request, or None at the end; BlockingIOError: none yet, ``Worker.wake()`` is called later."""
Tell = Callable[..., None]
"""Sends a message without waiting: ready · taken, index · returned, index · record, RequestRecord · lag, seconds."""
Count = Callable[[int], int]
"""Sets how many requests this worker has in flight; returns how many all workers have."""

_LEAD_NS = 3_000_000
"""An open loop's request is prepared this long before it is due, and held back at the socket."""
_LAG_TICK_S = 0.1
_BACK_OFF_S = 0.02, 0.5
"""How long a closed loop's stream pauses after it found nobody, or a rate limit: at first, doubled, and at most."""
_GOLDEN = 0.6180339887498949


def start_offset_ns(slot: int, concurrency: int) -> int:
    """Return when a closed loop's slot sends its first request, from the common start.

    The first N requests are spread over 5 ms each, at most one second in total, in the order of the golden ratio, so
    that they reach the server neither all at once nor at regular intervals.
    """
    return round(min(NS, concurrency * 5_000_000) * (slot * _GOLDEN % 1.0))


class Worker:
    """Worker ``number`` of a load: ``warm_up()``, ``connect()``, then ``run()`` until there is nothing more to send."""

    def __init__(self, number: int, job: Job, *, take: Take, tell: Tell, count: Count) -> None:
        from loadgen.api.sending import chat_api

        self._number = number
        self._job = job
        self._workers = job.workers
        self._take = take
        self._tell = tell
        self._count_all = count
        self._api = chat_api(job.api)
        self._client = self._api.make_client(job.host, job.access)
        self._stopped = asyncio.Event()
        self._requests: set[asyncio.Task[RequestRecord]] = set()
        self._in_flight = 0
        self._woken: asyncio.Future[None] | None = None
        self._started: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def start(self, start_ns: int) -> None:
        """Set the common start."""
        self._started.set_result(start_ns)

    def stop(self) -> None:
        """Send nothing more; what is in flight goes on."""
        self._stopped.set()
        self.wake()

    def cancel(self) -> None:
        """Send nothing more and end what is in flight."""
        self.stop()
        for task in self._requests:
            task.cancel()

    def wake(self) -> None:
        """Have all that wait try to take again."""
        if self._woken is not None:
            self._woken.set_result(None)
            self._woken = None

    async def warm_up(self) -> float | None:
        """Send this worker's part of the warm-up; return the tokens/s of a stream, if that tells."""
        from loadgen.api.sending import send

        rates = []
        for request in self._job.warmup[self._number :: self._job.workers]:
            record = await send(self._api, self._client, request, self._job.timeouts, access=self._job.access)
            rates.append(record.client_tokens_per_s or record.server_tokens_per_s)
        return max((rate for rate in rates if rate is not None), default=None)

    async def connect(self, workers: int) -> None:
        """Open a connection for each stream that this one of so many workers has."""
        self._workers = workers
        await self._api.preconnect(self._client, len(self._slots), self._job.timeouts.connect_s)

    async def run(self) -> None:
        """Report that the worker is ready, wait for the start, and send all there is to take."""
        self._tell("ready")
        start_ns = await self._started
        lag = asyncio.create_task(self._watch_lag())
        match self._job.load:
            case ClosedLoop() as load:
                await self._closed(load, start_ns)
            case OpenLoop() as load:
                await self._open(load, start_ns)
        lag.cancel()
        await self._client.close()

    @property
    def _slots(self) -> range:
        return self._job.own_slots[self._number :: self._workers]

    async def _closed(self, load: ClosedLoop, start_ns: int) -> None:
        end_ns = None if load.duration_s is None else start_ns + round(load.duration_s * NS)
        async with asyncio.TaskGroup() as group:
            for slot in self._slots:
                group.create_task(self._slot(start_ns + start_offset_ns(slot, load.concurrency), end_ns))

    async def _slot(self, first_ns: int, end_ns: int | None) -> None:
        await self._sleep_until(first_ns)
        pause_s, most_s = _BACK_OFF_S
        while not self._stopped.is_set() and (end_ns is None or monotonic_ns() < end_ns):
            taken = await self._next()
            if taken is None:
                return
            self._count(+1)
            record = await self._conversation(taken[0], None, round(pause_s * NS))
            if record.error is None or not record.error.wants_a_pause:
                pause_s = _BACK_OFF_S[0]
                continue
            await self._sleep_until(monotonic_ns() + round(pause_s * NS))
            pause_s = min(2 * pause_s, most_s)

    async def _open(self, load: OpenLoop, start_ns: int) -> None:
        async with asyncio.TaskGroup() as group:
            while not self._stopped.is_set() and (taken := await self._next()) is not None:
                request, offset = taken
                assert offset is not None
                due_ns = start_ns + offset
                if not await self._sleep_until(due_ns - _LEAD_NS):
                    self._tell("returned", request.index)
                elif self._try_acquire(load.max_in_flight):
                    group.create_task(self._conversation(request, due_ns))
                    await asyncio.sleep(0)  # lets it be prepared before the next is taken, even if we are late
                else:
                    group.create_task(self._retry_when_due(request, due_ns, load.max_in_flight))

    async def _retry_when_due(self, request: Request, due_ns: int, limit: int | None) -> None:
        """Send a request if there is room when it is due, though there was none when it was to be prepared."""
        if not await self._sleep_until(due_ns):
            self._tell("returned", request.index)
        elif self._try_acquire(limit):
            await self._conversation(request, due_ns)
        else:
            self._tell_unsent(request, due_ns, RequestError("dropped", f"{limit} requests were in flight"))

    def _try_acquire(self, limit: int | None) -> bool:
        """Count one more as in flight, if that is within the limit for all workers together."""
        in_flight = self._count(+1)  # first, and only then compared: two workers at once never exceed the limit
        if limit is None or in_flight <= limit:
            return True
        self._count(-1)
        return False

    async def _conversation(self, request: Request, due_ns: int | None, pause_ns: int | None = None) -> RequestRecord:
        """Send a request that is counted as in flight, and then the turn that follows; return the last record.

        A stream pauses for ``pause_ns`` after a failure that wants it.
        """
        record = await self._in_own_task(request, due_ns, pause_ns)
        while not self._stopped.is_set() and (following := record.following) is not None:
            self._tell("taken", following.index)
            self._count(+1)
            record = await self._in_own_task(following, None, pause_ns)
        return record

    async def _in_own_task(self, request: Request, due_ns: int | None, pause_ns: int | None) -> RequestRecord:
        """Send a request that is counted as in flight; ``cancel()`` cancels it, not the loop that sends the next."""
        task = asyncio.create_task(self._one(request, due_ns, pause_ns))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        try:
            return await task
        except asyncio.CancelledError:  # before it began; else ``send`` makes a record
            return self._tell_unsent(request, due_ns, RequestError("cancelled", "cancelled before it was sent"))
        finally:
            self._count(-1)

    async def _one(self, request: Request, due_ns: int | None, pause_ns: int | None) -> RequestRecord:
        from loadgen.api.sending import send

        record = await send(
            self._api, self._client, request, self._job.timeouts, due_ns=due_ns, worker=self._number,
            access=self._job.access,
        )  # fmt: skip
        if record.error is not None and record.error.wants_a_pause:
            record = replace(record, held_ns=pause_ns)
        if (following := follow_up(request, record)) is not None:
            record = replace(record, following=following)
        return self._tell_record(record)

    def _tell_unsent(self, request: Request, due_ns: int | None, error: RequestError) -> RequestRecord:
        return self._tell_record(RequestRecord(index=request.index, worker=self._number, due_ns=due_ns, error=error))

    def _tell_record(self, record: RequestRecord) -> RequestRecord:
        self._tell("record", record)
        return record

    def _count(self, change: int) -> int:
        """Add to the requests in flight; return how many all workers have."""
        self._in_flight += change
        return self._count_all(self._in_flight)

    async def _next(self) -> Taken | None:
        """Take the next request; None if there are no more or the load was stopped."""
        while True:
            try:
                taken = self._take()
            except BlockingIOError:
                if self._woken is None:
                    self._woken = asyncio.get_running_loop().create_future()
                await self._woken
                if self._stopped.is_set():
                    return None
                continue
            if taken is not None:
                self._tell("taken", taken[0].index)
            return taken

    async def _sleep_until(self, instant_ns: int) -> bool:
        """Sleep; return False if the load was stopped before the instant."""
        left = (instant_ns - monotonic_ns()) / NS
        if left > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), left)
        return not self._stopped.is_set()

    async def _watch_lag(self) -> None:
        """Report once a second the worst delay of the event loop."""
        worst, ticks = 0.0, 0
        while True:
            due = monotonic_ns() + round(_LAG_TICK_S * NS)
            await asyncio.sleep(_LAG_TICK_S)
            worst, ticks = max(worst, (monotonic_ns() - due) / NS), ticks + 1
            if ticks == 10:
                self._tell("lag", worst)
                worst, ticks = 0.0, 0
