"""A worker in this process, with plain callables: what it takes, tells and counts, and on whose clock."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from time import monotonic_ns
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.engine import Job
from loadgen.engine.worker import Taken, Worker, start_offset_ns
from loadgen.simulator import Simulator
from loadgen.turns import follow_up
from loadgen.types import NS, ClosedLoop, Load, OpenLoop, Request, RequestError, RequestRecord
from tests.support.scripted_server import SOON, chat
from tests.support.simulators import ANSWERS, CALL, MODELS, WEATHER, user

MS = 1_000_000


@given(concurrency=st.integers(1, 2000))
def test_the_first_requests_are_spread_within_their_bound_and_none_together(concurrency: int) -> None:
    offsets = [start_offset_ns(slot, concurrency) for slot in range(concurrency)]
    assert offsets[0] == 0
    assert all(0 <= offset < min(NS, concurrency * 5_000_000) for offset in offsets)
    assert len(set(offsets)) == concurrency


@given(concurrency=st.integers(2, 500))
def test_no_large_hole_and_no_heap_among_the_first_requests(concurrency: int) -> None:
    """The golden ratio leaves gaps of at most three sizes, none larger than about 2.6 times the mean."""
    spread = min(NS, concurrency * 5_000_000)
    offsets = sorted(start_offset_ns(slot, concurrency) for slot in range(concurrency))
    gaps = [b - a for a, b in pairwise([*offsets, spread])]
    mean = spread / concurrency
    assert max(gaps) < 2.7 * mean
    assert min(gaps) > 0.35 * mean


@pytest.mark.parametrize(("concurrency", "spread_ms"), [(1, 5), (4, 20), (16, 80), (200, 1000), (4000, 1000)])
def test_the_start_is_spread_over_five_milliseconds_each_and_a_second_at_most(concurrency: int, spread_ms: int) -> None:
    last = max(start_offset_ns(slot, concurrency) for slot in range(concurrency))
    assert last < spread_ms * 1_000_000
    assert concurrency < 4 or last > spread_ms * 600_000
    assert start_offset_ns(1, 200) == start_offset_ns(1, 4000) == pytest.approx(2 * start_offset_ns(1, 100), abs=1)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Simulator(MODELS, ANSWERS) as sim:
        yield sim.url


@dataclass
class Engine:
    """Runs one worker in this thread: a queue, a list and a number are all that it needs."""

    url: str
    load: Load
    waiting: deque[Taken | None]
    """What there is to take; None stands for the end."""
    elsewhere: int = 0
    """How many requests other workers have in flight."""
    told: list[tuple[Any, ...]] = field(default_factory=list)
    counted: list[int] = field(default_factory=list)
    start_ns: int = 0

    def take(self) -> Taken | None:
        if not self.waiting:
            raise BlockingIOError
        return None if self.waiting[0] is None else self.waiting.popleft()

    def tell(self, *message: Any) -> None:
        self.told.append(message)

    def count(self, many: int) -> int:
        self.counted.append(many)
        return many + self.elsewhere

    def run(self, meanwhile: Callable[[Worker], None] = lambda _: None) -> Engine:
        asyncio.run(self._run(meanwhile))
        return self

    async def _run(self, meanwhile: Callable[[Worker], None]) -> None:
        job = Job(load=self.load, workers=1, api="ollama", host=self.url, timeouts=SOON, warmup=())
        worker = Worker(0, job, take=self.take, tell=self.tell, count=self.count)
        assert await worker.warm_up() is None
        await worker.connect(1)
        running = asyncio.create_task(worker.run())
        self.start_ns = monotonic_ns()
        worker.start(self.start_ns)
        asyncio.get_running_loop().call_later(0.05, meanwhile, worker)
        await running

    @property
    def records(self) -> dict[int, RequestRecord]:
        return {message[1].index: message[1] for message in self.told if message[0] == "record"}


def some(many: int, due_ns: int | None = None) -> deque[Taken | None]:
    return deque([*((chat(f"question {i}", i, "sim:fast"), due_ns) for i in range(many)), None])


@pytest.mark.parametrize("load", [ClosedLoop(concurrency=3), OpenLoop(rate=1.0)], ids=["closed", "open"])
def test_three_callables_are_all_that_a_worker_needs(url: str, load: Load) -> None:
    engine = Engine(url, load, some(9, due_ns=None if isinstance(load, ClosedLoop) else 10 * MS)).run()
    assert engine.told[0] == ("ready",)
    assert [what for word, what in engine.told[1:] if word == "taken"] == list(range(9))
    assert sorted(engine.records) == list(range(9))
    assert all(record.completed and record.worker == 0 for record in engine.records.values())
    assert all(abs(b - a) == 1 for a, b in pairwise([0, *engine.counted])), "one up or one down each time"
    assert engine.counted[-1] == 0
    assert 1 <= max(engine.counted) <= (3 if isinstance(load, ClosedLoop) else 9)


def test_the_pause_that_follows_a_refusal_is_told_as_of_the_server(url: str) -> None:
    refused = [Request(index=i, model="fault:429", messages=({"role": "user", "content": "hi"},)) for i in range(3)]
    waiting: deque[Taken | None] = deque([*((request, None) for request in refused), *some(0)])
    records = Engine(url, ClosedLoop(concurrency=1), waiting).run().records
    assert [(record.error and record.error.kind, record.held_ns) for _, record in sorted(records.items())] == [
        ("rate_limited", 20 * MS), ("rate_limited", 40 * MS), ("rate_limited", 80 * MS),
    ]  # fmt: skip


def test_a_worker_that_finds_nothing_looks_again_when_it_is_woken(url: str) -> None:
    engine = Engine(url, ClosedLoop(concurrency=2), deque())

    def more_comes(worker: Worker) -> None:
        assert engine.told == [("ready",)]
        engine.waiting += some(5)
        worker.wake()

    assert sorted(engine.run(more_comes).records) == list(range(5))


def test_a_worker_that_waits_for_more_ends_when_it_is_stopped(url: str) -> None:
    engine = Engine(url, ClosedLoop(concurrency=2), deque()).run(Worker.stop)
    assert (engine.told, engine.counted) == ([("ready",)], [])


def test_what_other_workers_have_in_flight_counts_against_the_limit(url: str) -> None:
    load = OpenLoop(rate=1.0, max_in_flight=2)
    assert Engine(url, load, some(1, 0), elsewhere=1).run().records[0].completed
    dropped = Engine(url, load, some(1, 0), elsewhere=2).run().records[0]
    assert dropped.error == RequestError("dropped", "2 requests were in flight")


def test_a_record_tells_the_turn_that_follows_and_the_worker_sends_that_one(url: str) -> None:
    asked = Request(
        index=4, model="sim:fast", messages=tuple(user("Paris?")), tools=(WEATHER,), tool_results={"get_weather": "7"}
    )
    without_a_call = replace(asked, index=6, messages=tuple(user("hello?")))
    waiting: deque[Taken | None] = deque([(asked, None), (without_a_call, None), None])
    engine = Engine(url, ClosedLoop(concurrency=1), waiting).run()
    first = engine.records[4]
    assert first.tool_calls == (CALL,)
    assert first.following == follow_up(asked, replace(first, following=None)) != None  # noqa: E711
    assert [message[0] for message in engine.told[1:5]] == ["taken", "record", "taken", "record"]
    assert [record.following for index, record in engine.records.items() if index != 4] == [None, None]
    assert sorted(engine.records) == [4, 5, 6]
