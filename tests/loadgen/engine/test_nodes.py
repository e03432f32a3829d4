"""The driver of several nodes, which the test plays: who gets which request, when, and what death and a stop do."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic_ns
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen import ClosedLoop, LoadFailed, OpenLoop, Orders, Readings, Request, RequestRecord, Timeouts
from loadgen.arrivals import due_offsets
from loadgen.engine import Job, nodes
from loadgen.engine.agent import Down, Prepared, Up
from loadgen.engine.clocks import Clock, Line
from loadgen.engine.nodes import Lost, shares
from loadgen.engine.worker import start_offset_ns
from loadgen.types import Load
from loadgen.wire.access import Access
from tests.support.scripted_server import chat

Due = int | None


@dataclass
class Played:
    """A node: it takes requests into free slots at each exchange, and ends each after some exchanges."""

    job: Job
    takes: int = 1
    """How many exchanges a request lasts."""
    dies_at: int | None = None
    queue: deque[tuple[Request, Due]] = field(default_factory=deque)
    busy: dict[int, int] = field(default_factory=dict)
    given: list[tuple[int, Due]] = field(default_factory=list)
    got: list[tuple[int, Due]] = field(default_factory=list)
    downs: list[Down] = field(default_factory=list)

    @property
    def slots(self) -> int:
        return len(self.job.own_slots)

    def exchange(self, down: Down) -> Up | Lost:
        self.downs.append(down)
        self.given += [(request.index, due) for request, due in down.requests]
        if self.dies_at is not None and len(self.downs) > self.dies_at:
            return Lost("gone")
        self.got += [(request.index, due) for request, due in down.requests]
        self.queue.extend(down.requests)
        if down.start_ns is None and not down.stop:
            return Up(ready=True, free=self.slots)
        done = [index for index, left in self.busy.items() if left == 0]
        self.busy = {index: left - 1 for index, left in self.busy.items() if left}
        if down.stop:
            self.queue.clear()
            done += self.busy if down.hurry else []
            self.busy = {} if down.hurry else self.busy
        taken = []
        while self.queue and (not self.slots or len(self.busy) < self.slots):
            request, _ = self.queue.popleft()
            self.busy[request.index] = self.takes
            taken.append(request.index)
        records = tuple(
            RequestRecord(index=index, node=f"n{self.job.slots}", sent_ns=(down.start_ns or 0) + 5) for index in done
        )
        over = (down.end or down.stop) and not self.queue and not self.busy
        return Up(records=records, taken=tuple(taken), free=max(0, self.slots - len(self.busy)), ready=True,
                  in_flight=len(self.busy), ended=over, loop_lag_s=0.001 * len(self.downs))  # fmt: skip


@dataclass
class PlayedLinks:
    played: list[Played]
    after_each: Callable[[], None] = lambda: None
    asked: list[tuple[int, Down]] = field(default_factory=list)

    @property
    def names(self) -> Sequence[str]:
        return [f"node{number}" for number in range(len(self.played))]

    def ask(self, node: int, down: Down) -> None:
        self.asked.append((node, down))

    def answers(self, timeout_s: float) -> Iterable[tuple[int, Up | Lost]]:  # noqa: ARG002
        asked, self.asked = self.asked, []
        found = [(node, self.played[node].exchange(down)) for node, down in asked]
        self.after_each()
        return found


@dataclass
class Clocks:
    clocks: Sequence[Clock]
    ended: bool = False

    def end(self) -> None:
        self.ended = True


def job_of(load: Load, **more: Any) -> Job:
    return Job(load=load, workers=1, api="ollama", host="h:1", timeouts=Timeouts(), warmup=(), **more)


@dataclass
class Result:
    records: list[RequestRecord]
    played: list[Played]
    readings: Readings
    orders: Orders
    watch: Clocks

    @property
    def ends(self) -> dict[int, str]:
        found = {each.index: "done" if each.error is None else each.error.kind for each in self.records}
        assert len(found) == len(self.records), "one for each"
        return dict(sorted(found.items()))


def run(
    load: Load, requests: Iterable[Request | None], speeds: Sequence[int] = (1, 1), *, count: int | None = None,
    dies: dict[int, int] | None = None, after_each: Callable[[Result], None] = lambda _: None,
    clock: Clock | None = None,
) -> Result:  # fmt: skip
    job = job_of(load)
    jobs = shares(job, len(speeds))
    played = [Played(mine, takes=takes, dies_at=(dies or {}).get(number))
              for number, (mine, takes) in enumerate(zip(jobs, speeds, strict=False))]  # fmt: skip
    watch = Clocks([clock or Clock() for _ in played])
    result = Result([], played, Readings(), Orders(), watch)
    links = PlayedLinks(played, lambda: after_each(result))
    told = [Prepared(workers=1, cores=2, port=0, token=b"", server_rtt_s=0.001)] * len(played)
    due = due_offsets(load, count) if isinstance(load, OpenLoop) else None
    for record in nodes.records(requests, due, jobs, told, links, watch, result.orders, result.readings):
        result.records.append(record)
    return result


def some(many: int) -> Iterator[Request]:
    return (chat(index=index) for index in range(many))


# Closed loop


@given(
    concurrency=st.integers(1, 20), many=st.integers(0, 150), speeds=st.lists(st.integers(0, 4), min_size=1, max_size=4)
)
@settings(max_examples=25)
def test_every_request_ends_once_and_no_slot_idles_while_the_driver_has_work(
    concurrency: int, many: int, speeds: list[int]
) -> None:
    full: list[tuple[int, int]] = []

    def look(result: Result) -> None:
        if all(node.downs[-1].start_ns is not None for node in result.played):
            full.append((sum(len(node.busy) for node in result.played), sum(len(node.got) for node in result.played)))

    result = run(ClosedLoop(concurrency=concurrency), some(many), speeds, after_each=look)
    assert result.ends == dict.fromkeys(range(many), "done")
    assert all(busy == concurrency for busy, got in full if got <= many - 4 * concurrency)
    assert sum(node.slots for node in result.played) == concurrency
    assert result.watch.ended


@pytest.mark.parametrize("total", [1990, 2000, 2007])
def test_a_fast_node_does_more_and_none_idles_long_at_the_end(total: int) -> None:
    idle: list[int] = []

    def look(result: Result) -> None:
        if result.played[1].downs[-1].start_ns is not None:
            idle.append(min(len(result.played[1].queue), result.played[0].slots - len(result.played[0].busy)))

    result = run(ClosedLoop(concurrency=32), some(total), (0, 3), after_each=look)
    many = [len(node.got) for node in result.played]
    assert sum(many) == total
    assert 2.5 < many[0] / many[1] < 4.5, "one exchange for each request against four"
    assert max(idle) <= 8, "at most a quarter of the slots are free while requests wait on the other node"


@pytest.mark.parametrize(("concurrency", "many"), [(32, 64), (32, 48), (64, 320), (512, 1024), (6, 40)])
def test_a_fast_and_a_slow_node_end_together(concurrency: int, many: int) -> None:
    busy: list[list[int]] = []

    def look(result: Result) -> None:
        busy.append([len(node.busy) for node in result.played])

    result = run(ClosedLoop(concurrency=concurrency), some(many), (0, 4), after_each=look)
    last = [max(at for at, each in enumerate(busy) if each[number]) for number in range(2)]
    assert last[1] - last[0] <= 4 + 1, "no more than what one request of the slow one takes"
    assert sum(len(node.got) for node in result.played) == many


@pytest.mark.parametrize(("many", "at_once"), [(100, 100), (200, 100), (240, 120), (9999, 200)])
def test_the_last_requests_wait_for_whoever_is_free_and_half_of_those_before_on_the_nodes(
    many: int, at_once: int
) -> None:
    given: list[int] = []

    def look(result: Result) -> None:
        given.append(sum(len(node.got) for node in result.played))

    def stop(result: Result) -> None:
        look(result)
        result.orders.stop = len(given) > 5

    run(ClosedLoop(concurrency=100), some(many), (10, 10), after_each=stop)
    assert max(given) == at_once


def test_slots_are_dealt_out_so_that_the_first_requests_are_spread_as_on_one_machine() -> None:
    for count in range(1, 6):
        told = shares(job_of(ClosedLoop(concurrency=12)), count)
        slots = [slot for job in told for slot in job.own_slots]
        assert sorted(slots) == list(range(12))
        assert max(len(job.own_slots) for job in told) - min(len(job.own_slots) for job in told) <= 1
        assert all(job.load == ClosedLoop(concurrency=12) for job in told), "offsets are of the whole load"
    assert len(shares(job_of(ClosedLoop(concurrency=2)), 5)) == 2


def test_what_may_not_be_sent_yet_is_waited_for_while_others_wait_to_be_taken_and_then_ends_the_load() -> None:
    def stingy() -> Iterator[Request | None]:
        yield from some(5)
        while True:
            yield None

    result = run(ClosedLoop(concurrency=2), stingy())
    assert result.ends == dict.fromkeys(range(5), "done")
    assert result.readings.ran_dry


# Open loop


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_due_instants_are_the_same_whatever_the_number_of_nodes(count: int) -> None:
    load = OpenLoop(rate=2000.0, arrival="poisson", seed=5)
    result = run(load, some(40), [1] * count, count=40)
    got = sorted((index, due) for node in result.played for index, due in node.got)
    assert got == list(enumerate(due_offsets(load, 40)))
    assert [due for _, due in got[:4]] == [0, 487625, 1164610, 1957455], "golden"
    assert [[index for index, _ in node.got] for node in result.played] == [
        list(range(n, 40, count)) for n in range(count)
    ]


def test_rate_and_limit_in_flight_are_divided_and_sum_up() -> None:
    told = shares(job_of(OpenLoop(rate=10.0, max_in_flight=7)), 3)
    assert [(job.load.rate, job.load.max_in_flight) for job in told] == [(10 / 3, 3), (10 / 3, 2), (10 / 3, 2)]  # type: ignore[union-attr]
    assert len(shares(job_of(OpenLoop(rate=10.0, max_in_flight=2)), 3)) == 2
    assert [job.load.max_in_flight for job in shares(job_of(OpenLoop(rate=1.0)), 2)] == [None, None]  # type: ignore[union-attr]


# Start, clocks, readings


def test_all_nodes_are_told_one_start_on_one_clock_once_all_are_ready() -> None:
    clock = Clock(Line(0, 500, 0.0), error_ns=70)
    result = run(ClosedLoop(concurrency=4), some(20), clock=clock)
    starts = {down.start_ns for node in result.played for down in node.downs}
    assert starts == {None, result.readings.started_ns}
    assert all(down.line == clock.line for node in result.played for down in node.downs)
    offsets = [min(start_offset_ns(slot, 4) for slot in node.job.own_slots) for node in result.played]
    for told, offset in zip(result.readings.nodes, offsets, strict=True):
        assert told.start_lag_s == pytest.approx((5 - offset) / 1e9), "sent 5 ns after the common start"
        assert (told.clock_offset_ns, told.clock_error_ns, told.died) == (500, 70, False)
        assert (told.workers, told.cores, told.server_rtt_s) == (1, 2, 0.001)
        assert told.loop_lag_max_s > 0
    assert [told.name for told in result.readings.nodes] == ["node0", "node1"]
    assert result.readings.workers == 2
    assert sum(told.requests for told in result.readings.nodes) == 20


# Death and stop


def test_a_dead_nodes_requests_in_flight_are_lost_and_the_rest_goes_to_others() -> None:
    result = run(ClosedLoop(concurrency=8), some(100), (3, 3), dies={1: 9})
    kinds = Counter(result.ends.values())
    assert sorted(result.ends) == list(range(100))
    assert kinds == {"done": 96, "node_died": 4}
    lost = [record for record in result.records if record.error is not None]
    assert {record.node for record in lost} == {"node1"}
    assert [told.died for told in result.readings.nodes] == [False, True]
    near, far = result.watch.clocks
    assert near.lost_ns is None
    assert 0 < (far.lost_ns or 0) <= monotonic_ns()


def test_in_an_open_loop_the_rest_of_a_dead_node_is_dropped_and_later_requests_go_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = OpenLoop(rate=1000.0)
    monkeypatch.setattr(nodes, "_HORIZON_NS", 20_000_000)
    result = run(load, some(60), (2, 10**9), count=60, dies={1: 1})
    assert sorted(result.ends) == list(range(60))
    dropped = [record for record in result.records if record.error and record.error.kind == "dropped"]
    started = result.readings.started_ns
    assert started is not None
    assert all(record.due_ns == started + due_offsets(load, 60)[record.index] for record in dropped)
    assert Counter(result.ends.values()).keys() == {"done", "dropped"}
    assert sorted(record.index for record in dropped) == [index for index, _ in result.played[1].given]
    assert len(dropped) in range(5, 30), "those after the death go to the other"


def test_a_load_whose_nodes_all_die_fails_and_says_so() -> None:
    with pytest.raises(LoadFailed, match="every node has died"):
        run(ClosedLoop(concurrency=8), some(100), dies={0: 5, 1: 7})
    with pytest.raises(LoadFailed, match="node node1 died before the load began"):
        run(ClosedLoop(concurrency=8), some(100), dies={1: 0})


def test_a_stop_ends_every_node_and_what_nobody_took_has_no_record() -> None:
    def stop(result: Result) -> None:
        result.orders.stop = len(result.records) > 20

    result = run(ClosedLoop(concurrency=8), some(1000), after_each=stop)
    assert set(result.ends.values()) == {"done"}
    assert 20 < len(result.records) < 60
    assert result.readings.stopped_ns is not None
    assert all(node.downs[-1].stop for node in result.played)


def test_a_node_that_does_not_say_that_it_has_stopped_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "_CANCEL_S", 0.0)

    def stop(result: Result) -> None:
        result.orders.stop = result.orders.hurry = bool(result.records)
        if result.orders.stop:
            result.played[1].exchange = lambda _: Up(in_flight=2)  # type: ignore[method-assign]

    result = run(ClosedLoop(concurrency=4), some(50), (2, 10**9), after_each=stop)
    assert [record.node for record in result.records if record.error is not None] == ["node1", "node1"]
    assert {record.error.kind for record in result.records if record.error is not None} == {"cancelled"}


def test_a_node_is_told_no_secret() -> None:
    access = Access().and_variable("Authorization", "sk-secret", "the key in KEY", "KEY", before="Bearer ")
    (told,) = shares(job_of(ClosedLoop(concurrency=1), access=access), 1)
    assert b"sk-secret" not in __import__("pickle").dumps(told)
    assert told.access.from_environment({"KEY": "theirs"}).headers == (("Authorization", "Bearer theirs"),)
