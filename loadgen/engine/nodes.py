"""The driver of a load that several nodes send: who gets which request, one common start, one clock, one end.

Closed loop: slots are dealt out to the nodes, requests are not: each node has what its free slots take and as many in
reserve, and towards the end ever fewer, so that none idles while another has some. Open loop: the one schedule
is striped, and each request goes to its node shortly before it is due. ``Links`` reach the nodes; nothing here knows
how.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic_ns
from typing import Protocol

from loadgen.engine import Job, LoadFailed, NodeReadings, Orders, Readings
from loadgen.engine.agent import Down, Due, Prepared, Up
from loadgen.engine.clocks import Clock, drift_ppm
from loadgen.engine.worker import start_offset_ns
from loadgen.types import NS, ClosedLoop, Request, RequestError, RequestRecord

_POLL_S = 0.1
_HURRIED_HOLD_S = 0.02
_START_AFTER_NS = 250_000_000
_START_ROUND_TRIPS = 20
_AHEAD = 3, 512
"""Requests that the driver makes ahead: for each slot, and at most beyond one for each. So it sees the end come."""
_HORIZON_NS = 2 * NS
"""How long before it is due a request of an open loop goes to its node."""
_CANCEL_S = 5.0
"""How long a node may take to answer that its load is over, after what was in flight was cancelled."""


class Lost(Exception):
    """A node no longer answers; the text says why, in the words of whoever noticed."""


class Links(Protocol):
    """The way to the nodes, each by its place in ``names``."""

    names: Sequence[str]

    def ask(self, node: int, down: Down) -> None:
        """Begin an exchange, if none is under way with this node."""

    def answers(self, timeout_s: float) -> Iterable[tuple[int, Up | Lost]]:
        """Return what has come by then of the exchanges, or as soon as anything has."""


class Followed(Protocol):
    """The clocks of the nodes, each in its place, while somebody measures them."""

    clocks: Sequence[Clock]

    def end(self) -> None:
        """Measure for the last time."""


def shares(job: Job, nodes: int) -> list[Job]:
    """Return what each of the nodes is told: every nth slot, warm-up request and place for a request in flight.

    At most as many as the load has something for.
    """
    load, told = job.load, []
    for node in range(nodes):
        mine = replace(job, warmup=job.warmup[node::nodes], cluster=None, access=job.access.by_name())
        if isinstance(load, ClosedLoop):
            if not (slots := range(node, load.concurrency, nodes)):
                break
            mine = replace(mine, slots=slots)
        else:
            limit = load.max_in_flight
            if limit is not None and node >= limit:
                break
            part = None if limit is None else len(range(node, limit, nodes))
            mine = replace(mine, load=replace(load, rate=load.rate / nodes, max_in_flight=part))
        told.append(mine)
    return told


@dataclass(slots=True)
class _Node:
    """One node as the driver sees it."""

    number: int
    slots: int
    readings: NodeReadings
    clock: Clock
    queue: list[tuple[Request, Due]] = field(default_factory=list)
    """What goes to it with the next exchange."""
    waiting: dict[int, tuple[Request, Due]] = field(default_factory=dict)
    """What it has, as far as known without a worker that took it."""
    taken: dict[int, Due] = field(default_factory=dict)
    """What its workers have, without a record so far."""
    free: int = 0
    reserve: int = 0
    """How many requests may wait there beyond what its free slots take."""
    first_due_ns: int | None = None
    """When its first request should be sent, from the common start."""
    first_sent_ns: int | None = None
    stream_tokens_per_s: float | None = None
    heard_ns: int = 0
    """When it last answered."""
    workers_died: int = 0
    asked: bool = False
    ready: bool = False
    over: bool = False


def records(
    requests: Iterable[Request | None], due: list[int] | None, jobs: Sequence[Job], prepared: Sequence[Prepared],
    links: Links, followed: Followed, orders: Orders, readings: Readings,
) -> Iterator[RequestRecord]:  # fmt: skip
    """Run the load on nodes that have been prepared with these jobs."""
    nodes = []
    for number, (job, known) in enumerate(zip(jobs, prepared, strict=True)):
        told = NodeReadings(
            name=links.names[number], workers=known.workers, cores=known.cores, server_rtt_s=known.server_rtt_s
        )
        offsets = [start_offset_ns(slot, _concurrency(job)) for slot in job.own_slots]
        nodes.append(_Node(number, len(job.own_slots), told, followed.clocks[number], free=len(job.own_slots),
                           first_due_ns=min(offsets, default=None)))  # fmt: skip
    readings.nodes = tuple(node.readings for node in nodes)
    driver = _Driver(iter(requests), due, jobs[0], nodes, links, orders, readings)
    yield from driver.records()
    followed.end()
    driver.read()


def _concurrency(job: Job) -> int:
    return job.load.concurrency if isinstance(job.load, ClosedLoop) else 0


@dataclass(slots=True)
class _Driver:
    requests: Iterator[Request | None]
    due: list[int] | None
    job: Job
    nodes: list[_Node]
    links: Links
    orders: Orders
    readings: Readings
    ahead: deque[tuple[Request, Due]] = field(default_factory=deque)
    """Made, and given to no node."""
    made: int = 0
    exhausted: bool = False
    hurried_ns: int | None = None
    """When it was seen that nothing in flight is waited for."""

    @property
    def alive(self) -> list[_Node]:
        return [node for node in self.nodes if not node.over]

    def records(self) -> Iterator[RequestRecord]:
        while alive := self.alive:
            self._make()
            self._deal()
            for node in alive:
                if not node.asked:
                    node.asked = True
                    self.links.ask(node.number, self._down(node))
            for number, answer in self.links.answers(_POLL_S):
                node = self.nodes[number]
                node.asked = False
                if isinstance(answer, Lost):
                    yield from self._lost(node, answer)
                elif not node.over:
                    yield from self._take(node, answer)
            self._start()
            self.read()
            yield from self._stop_if_asked()

    # Who gets what

    def _make(self) -> None:
        """Make requests ahead: some for each slot, or all that are due within the horizon."""
        while not self.exhausted and not self.readings.ran_dry and self._may_make():
            try:
                request = next(self.requests)
            except StopIteration:
                self.exhausted = True
                return
            if request is None:
                if not self.ahead and not any(node.waiting or node.queue for node in self.nodes):
                    self.readings.ran_dry = True
                return
            self.ahead.append((request, None if self.due is None else self.due[self.made]))
            self.made += 1

    def _may_make(self) -> bool:
        if self.orders.enough:
            self.exhausted = True
            self.ahead.clear()  # later than what nodes have, so that no index is left out
        if self.orders.stop or self.orders.enough:
            return False
        if self.due is None:
            slots, (each, beyond) = _concurrency(self.job), _AHEAD
            return len(self.ahead) < min(each * slots, slots + beyond)
        if self.made >= len(self.due):
            self.exhausted = True
            return False
        return self.due[self.made] <= self._elapsed_ns() + _HORIZON_NS

    def _elapsed_ns(self) -> int:
        started_ns = self.readings.started_ns
        return 0 if started_ns is None else monotonic_ns() - started_ns

    def _deal(self) -> None:
        alive = self.alive
        if self.due is not None:
            first = self.made - len(self.ahead)
            for place, entry in enumerate(self.ahead, first):
                node = self.nodes[place % len(self.nodes)]
                node = alive[place % len(alive)] if node.over else node
                if node.first_due_ns is None:
                    node.first_due_ns = entry[1]
                node.queue.append(entry)
            self.ahead.clear()
            return
        self._reserve(alive)
        wanted = {node.number: max(0, node.free + node.reserve - self._held(node)) for node in alive}
        while self.ahead and any(wanted.values()):  # in turn, so that no node has what another lacks
            for node in alive:
                if wanted[node.number] and self.ahead:
                    wanted[node.number] -= 1
                    node.queue.append(self.ahead.popleft())

    @staticmethod
    def _held(node: _Node) -> int:
        return len(node.waiting) + len(node.queue)

    def _reserve(self, alive: Sequence[_Node]) -> None:
        """Divide half of what is left among the nodes' reserves, by their slots, at most one for each.

        The last ones, as many as there are slots, wait for whoever is free.
        """
        slots = sum(node.slots for node in alive)
        taken = sum(max(0, node.free - self._held(node)) for node in alive)
        left = max(0, len(self.ahead) - taken - slots)
        for node in alive:
            node.reserve = min(node.slots, left * node.slots // (2 * slots)) if len(alive) > 1 else node.slots

    def _down(self, node: _Node) -> Down:
        requests, node.queue = tuple(node.queue), []
        node.waiting.update((entry[0].index, entry) for entry in requests)
        low = None
        if self.due is None and self.ahead:
            low = node.reserve // 2 - 1
        started = self.readings.started_ns is not None
        return Down(
            requests=requests, line=node.clock.line, start_ns=self.readings.started_ns, end=self._is_used_up(),
            stop=self.orders.stop, hurry=self.orders.hurry, low=low, hold_s=_POLL_S if started else _HURRIED_HOLD_S,
        )  # fmt: skip

    def _is_used_up(self) -> bool:
        """Return whether nothing will be given to any node: there is none left, and none that a node may leave."""
        if self.ahead or not (self.exhausted or self.readings.ran_dry):
            return False
        return not any(node.waiting or node.queue for node in self.alive)

    # What comes back

    def _take(self, node: _Node, up: Up) -> Iterator[RequestRecord]:
        node.heard_ns = monotonic_ns()
        for index in up.taken:
            entry = node.waiting.pop(index, None)
            node.taken[index] = None if entry is None else entry[1]
        for record in up.records:
            node.taken.pop(record.index, None)
            if record.following is not None and not self.orders.stop:
                node.taken.setdefault(record.following.index, None)
            if record.sent_ns is not None:
                node.first_sent_ns = min(record.sent_ns, node.first_sent_ns or record.sent_ns)
            node.readings.requests += 1
            yield record
        told = node.readings
        node.free, node.ready, node.workers_died = up.free, node.ready or up.ready, up.workers_died
        told.in_flight, told.loop_lag_s, told.cpu_s = up.in_flight, up.loop_lag_s, up.cpu_s
        told.workers, node.stream_tokens_per_s = up.workers or told.workers, up.stream_tokens_per_s
        told.loop_lag_max_s = max(told.loop_lag_max_s, up.loop_lag_s)
        if up.failure is not None:
            raise LoadFailed(f"node {told.name}: {up.failure}")
        if up.ended:  # what nobody took there was stopped, or its time is up
            self._end(node)

    def _end(self, node: _Node) -> None:
        node.over, node.readings.in_flight = True, 0
        node.waiting.clear()
        node.queue.clear()
        node.taken.clear()

    def _lost(self, node: _Node, lost: Lost) -> Iterator[RequestRecord]:
        """Record what the workers of a node that died had; the rest is for others, unless its time has come."""
        if node.over:
            return
        name = node.readings.name
        node.readings.died, node.clock.lost_ns = True, node.heard_ns
        if self.readings.started_ns is None:
            raise LoadFailed(f"node {name} died before the load began ({lost})")
        for index, due in node.taken.items():
            yield self._unanswered(node, index, due, RequestError("node_died", "the node that had this request died"))
        left = [*node.waiting.values(), *node.queue]
        self._end(node)
        if self.due is None:
            self.ahead.extendleft(reversed(left))
        else:
            dropped = RequestError("dropped", f"node {name}, which was to send it, had died")
            for request, due in left:
                yield self._unanswered(node, request.index, due, dropped)
        if not self.alive and not (self.exhausted and not self.ahead):
            raise LoadFailed(f"every node has died ({lost})")

    def _unanswered(self, node: _Node, index: int, due: Due, error: RequestError) -> RequestRecord:
        started_ns = self.readings.started_ns
        due_ns = None if due is None or started_ns is None else started_ns + due
        return RequestRecord(index=index, node=node.readings.name, due_ns=due_ns, error=error)

    # Start and end

    def _start(self) -> None:
        """Set the common start once all nodes are ready."""
        if self.readings.started_ns is None and self.alive and all(node.ready for node in self.alive):
            farthest_ns = max(node.clock.round_trip_ns for node in self.nodes)
            self.readings.ready = True
            self.readings.workers = sum(node.readings.workers for node in self.nodes)
            rates = [node.stream_tokens_per_s for node in self.nodes if node.stream_tokens_per_s is not None]
            self.readings.stream_tokens_per_s = max(rates, default=None)
            self.readings.started_ns = monotonic_ns() + max(_START_AFTER_NS, _START_ROUND_TRIPS * farthest_ns)

    def _stop_if_asked(self) -> Iterator[RequestRecord]:
        """Leave nodes behind that do not say in time that they have stopped."""
        if not self.orders.stop:
            return
        now_ns = monotonic_ns()
        self.readings.stopped_ns = self.readings.stopped_ns or now_ns
        if self.orders.hurry:
            self.hurried_ns = self.hurried_ns or now_ns
        grace_ns = round((self.job.grace_s + _CANCEL_S) * NS)
        hurried = self.hurried_ns is not None and now_ns > self.hurried_ns + _CANCEL_S * NS
        if not hurried and now_ns <= self.readings.stopped_ns + grace_ns:
            return
        for node in self.alive:
            for index, due in node.taken.items():
                yield self._unanswered(node, index, due, RequestError("cancelled", "stopped"))
            self._end(node)

    def read(self) -> None:
        """Tell what is known of the nodes and their clocks."""
        readings, started_ns = self.readings, self.readings.started_ns
        readings.in_flight = sum(node.readings.in_flight for node in self.nodes)
        readings.loop_lag_s = max(node.readings.loop_lag_s for node in self.nodes)
        readings.workers_died = sum(node.workers_died for node in self.nodes)
        for node in self.nodes:
            told, line = node.readings, node.clock.line
            told.clock_offset_ns, told.clock_drift_ppm = line.offset_ns, drift_ppm(line)
            told.clock_error_ns = node.clock.error_at(monotonic_ns())
            if started_ns is not None and node.first_sent_ns is not None:
                told.start_lag_s = (node.first_sent_ns - started_ns - (node.first_due_ns or 0)) / NS
