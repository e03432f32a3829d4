"""Engines send a load: each is a module with a generator ``records``; "local" runs worker processes on this machine,
"ray" the same on each node of a cluster.

Each request ends in exactly one record, on the clock (``time.monotonic_ns``) of the process that called
``generate_load``, wherever it was sent from.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from math import ceil

from loadgen.api import DEFAULT_API
from loadgen.arrivals import due_offsets
from loadgen.types import ClosedLoop, Load, OpenLoop, Request, RequestRecord, Timeouts
from loadgen.wire.access import NO_ACCESS, Access

ENGINES: Mapping[str, str] = {"local": "loadgen.engine.local", "ray": "loadgen.engine.ray"}
"""Name -> the module with ``records(requests, due, job, orders, readings)``, imported on first use; ``due``: when each
request of an open loop is due, in ns from the common start."""
_STREAM_TOKENS_PER_S = 100.0
"""What a stream is taken to have where no warm-up tells."""
_TOKENS_PER_S_AND_WORKER = 6_400
"""A token costs less the more of them a process finds at a time; with twice as many, several workers read late."""
_REQUESTS_PER_S_AND_WORKER = 50
_STREAMS_PER_WARMUP = 64
_MOST_WARMUP = 32


class LoadFailed(Exception):
    """Workers die without finishing any request; the load cannot go on."""


@dataclass(slots=True)
class Orders:
    """The caller's orders to a running load, from any thread."""

    stop: bool = False
    """Send nothing more, and end."""
    hurry: bool = False
    """Do not wait for what is in flight."""
    enough: bool = False
    """Hand out nothing more, and end by itself once what the workers have taken has ended."""
    start_ns: int | None = 0
    """When to start, if all is ready by then, else as soon as it is; None: not before this is set."""


@dataclass(slots=True, kw_only=True)
class NodeReadings:
    """One node of a cluster during a load; instants are on the caller's clock."""

    name: str
    workers: int = 0
    cores: int = 0
    requests: int = 0
    """Those with a record, whatever became of them."""
    in_flight: int = 0
    loop_lag_s: float = 0.0
    """The worst delay of a worker's event loop in the last second or so."""
    loop_lag_max_s: float = 0.0
    cpu_s: float = 0.0
    """Processor time of the node's processes since the common start."""
    server_rtt_s: float | None = None
    """The shortest of some TCP handshakes with the server; None: not measured."""
    start_lag_s: float | None = None
    """The node's first request sent - when it should have been."""
    clock_offset_ns: int = 0
    """The caller's clock - the node's, at the last measurement."""
    clock_error_ns: int = 0
    """By how much instants of this node may be off after conversion."""
    clock_drift_ppm: float = 0.0
    """By how much the node's clock goes slower than the caller's."""
    died: bool = False


@dataclass(slots=True)
class Readings:
    """The state of a running load, for any thread; instants are on the caller's clock."""

    started_ns: int | None = None
    """The common start."""
    ready: bool = False
    """Whether all workers are ready to start."""
    stopped_ns: int | None = None
    """When the workers were told to stop; None if the load ended by itself."""
    in_flight: int = 0
    loop_lag_s: float = 0.0
    """The worst delay of a worker's event loop in the last second or so."""
    workers: int = 0
    """The worker processes that send, on all nodes of a cluster, once that is known."""
    stream_tokens_per_s: float | None = None
    """Of one stream in the warm-up, where the number of workers depends on it."""
    ran_dry: bool = False
    """Whether it ended because no further request could be handed out."""
    workers_died: int = 0
    pids: tuple[int, ...] = ()
    """The sending processes of this machine."""
    nodes: tuple[NodeReadings, ...] = ()
    """The nodes of a cluster; none for a load from this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Which nodes an engine of many machines sends from."""

    address: str | None = None
    """None: the cluster that the environment names, or that runs on this machine."""
    nodes: int | None = None
    """None: all that can be had without the server's and the caller's."""
    workers: int | None = None
    """Worker processes on each node; None: by its cores and its share of the load."""


class NotReady(Exception):
    """An engine cannot begin; the text is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The parameters of a load for an engine and its workers."""

    load: Load
    workers: int
    api: str
    host: str | None
    access: Access = NO_ACCESS
    timeouts: Timeouts
    warmup: tuple[Request, ...]
    """Divided among the workers, sent before the common start."""
    grace_s: float = 10.0
    """How long a load that is stopped waits for what is in flight."""
    slots: range | None = None
    """Which of a closed loop's slots are sent from here; None: all."""
    cluster: Cluster | None = None
    adapts: bool = False
    """Whether there may be other than ``workers`` once the warm-up has told how many tokens come."""

    @property
    def own_slots(self) -> range:
        """The slots of a closed loop that are sent from here; none of an open loop."""
        if not isinstance(self.load, ClosedLoop):
            return range(0)
        return range(self.load.concurrency) if self.slots is None else self.slots

    @property
    def own_load(self) -> Load:
        """The load as far as it is sent from here."""
        return replace(self.load, concurrency=len(self.own_slots)) if isinstance(self.load, ClosedLoop) else self.load


def make_ready(
    engine: str, cluster: Cluster, servers: Sequence[tuple[str, Access]], loads: Sequence[Load]
) -> tuple[str, ...]:
    """Find out from where an engine of many machines will send to servers, given by address and access.

    Return that in lines for the user; NotReady if it cannot. ``leave(engine)`` undoes what this began.
    """
    ready: tuple[str, ...] = import_module(ENGINES[engine]).make_ready(cluster, servers, loads)
    return ready


def leave(engine: str) -> None:
    """Leave what ``make_ready`` joined."""
    import_module(ENGINES[engine]).leave()


def default_warmup(load: Load) -> int:
    """Return how many requests warm up: one per 64 streams or 50 requests/s, however many workers there are."""
    match load:
        case ClosedLoop(concurrency=concurrency):
            return min(ceil(concurrency / _STREAMS_PER_WARMUP), _MOST_WARMUP)
        case OpenLoop(rate=rate):
            return min(ceil(rate / _REQUESTS_PER_S_AND_WORKER), _MOST_WARMUP)


def default_workers(load: Load, stream_tokens_per_s: float | None = None) -> int:
    """Return how many workers a load gets: at least one, at most one per core and one per stream.

    One for 6,400 tokens/s of a closed loop, each stream of which is taken to have what one of the warm-up had, 100/s
    if that is not known; a core is left to the main process. One for 50 requests/s of an open loop.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    match load:
        case ClosedLoop(concurrency=concurrency):
            wanted = round(concurrency * (stream_tokens_per_s or _STREAM_TOKENS_PER_S) / _TOKENS_PER_S_AND_WORKER)
            cores = min(cores - 1, concurrency)
        case OpenLoop(rate=rate):
            wanted = ceil(rate / _REQUESTS_PER_S_AND_WORKER)
    return max(1, min(wanted, cores))


def started_ahead(
    engine: str, load: Load, workers: int | None = None, api: str | None = None
) -> AbstractContextManager[None]:
    """Start what will send a load that begins within the ``with`` block: the processes take 0.3 s until they can.

    Those that another block around this one has started count.
    """
    if engine != "local":
        return nullcontext()
    many = default_workers(load) if workers is None else workers
    if isinstance(load, ClosedLoop):
        many = min(many, load.concurrency)
    ahead: AbstractContextManager[None] = import_module(ENGINES[engine]).spare_workers(many, api or DEFAULT_API)
    return ahead


def generate_load(
    requests: Iterable[Request | None],
    load: Load,
    *,
    count: int | None = None,
    api: str = DEFAULT_API,
    host: str | None = None,
    access: Access = NO_ACCESS,
    workers: int | None = None,
    warmup: Sequence[Request] = (),
    timeouts: Timeouts | None = None,
    grace_s: float = 10.0,
    orders: Orders | None = None,
    readings: Readings | None = None,
    engine: str = "local",
    cluster: Cluster | None = None,
) -> Iterator[RequestRecord]:
    """Send the requests under the load; yield one record for each, in the order they end.

    ``requests`` is consumed on demand and may be endless if the load has a duration; an open loop without one needs
    ``count``, or sized ``requests``, for its schedule. None among them says that the next may not be sent yet: it is
    asked for again as long as others are still to be taken by a worker, and then ends the load. ``warmup`` requests are
    divided among the workers, sent before the common start, and not yielded; without ``workers``, it tells how many
    workers a closed loop needs (``Readings.workers``). Other threads can stop the load by
    ``orders`` and watch it in ``readings``.
    Closing the generator ends the workers.
    """
    adapts = workers is None and engine == "local" and isinstance(load, ClosedLoop)
    if workers is None:
        workers = default_workers(load)
    due = None
    if isinstance(load, OpenLoop):
        if count is None and isinstance(requests, Sized):
            count = len(requests)
        due = due_offsets(load, count)
    else:
        workers = min(workers, load.concurrency)
    job = Job(load=load, workers=workers, api=api, host=host, access=access, timeouts=timeouts or Timeouts(),
              warmup=tuple(warmup), grace_s=grace_s, cluster=cluster, adapts=adapts)  # fmt: skip
    records = import_module(ENGINES[engine]).records
    yield from records(requests, due, job, orders or Orders(), readings or Readings())
