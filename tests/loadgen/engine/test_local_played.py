"""The parent of a load, whose workers the test plays: what it makes of what they say, of their death, and of a stop."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from time import monotonic_ns
from typing import Any

import pytest

from loadgen import ClosedLoop, LoadFailed, OpenLoop, Orders, Readings, Request, RequestRecord, Timeouts, generate_load
from loadgen.engine import feed as feed_module
from loadgen.engine import local
from loadgen.types import RequestError
from tests.support.halves import WAIT_S, Played, played, until
from tests.support.scripted_server import SOON, chat

MS = 1_000_000
ONE = ClosedLoop(concurrency=1)
DIED = RequestError("worker_died", "the worker process that had this request died")


def some(many: int) -> list[Request]:
    return [chat(index=index) for index in range(many)]


def work(worker: Played, at_most: int | None = None) -> None:
    """Take requests and record them."""
    for _ in count() if at_most is None else range(at_most):
        index = worker.take()
        if index is None:
            return
        record(worker, index)


def record(worker: Played, index: int, **more: Any) -> None:
    worker.tell("record", RequestRecord(index=index, worker=worker.place, **more))


def run(
    script: Callable[[Played], None],
    requests: Iterable[Request],
    load: Any,
    readings: Readings | None = None,
    **more: Any,
) -> tuple[list[RequestRecord], list[Played]]:
    """All records, and the workers that were started."""
    with played(script) as workers:
        records = list(generate_load(requests, load, readings=readings, **{"workers": 1, "grace_s": 600.0, **more}))
    return records, workers


def ends(records: Iterable[RequestRecord]) -> dict[int, str]:
    found = [(record.index, "done" if record.error is None else record.error.kind) for record in records]
    assert len(dict(found)) == len(found), "one for each"
    return dict(sorted(found))


# When the parent looks


def begins(worker: Played) -> None:
    worker.begin()
    work(worker)
    worker.tell("bye")


@pytest.mark.parametrize(
    ("load", "come", "gathers"),
    [
        (ONE, False, True),
        (OpenLoop(rate=1000.0), False, False),  # when a request is due, the parent is not to be at work
        (ONE, True, False),  # who hands them out waits to hear that they are taken
    ],
)
def test_messages_gather_where_nobody_waits_for_them(
    monkeypatch: pytest.MonkeyPatch, load: Any, come: bool, gathers: bool
) -> None:
    """``come``: the requests come from elsewhere meanwhile."""
    slept: list[float] = []
    monkeypatch.setattr(local, "sleep", slept.append)
    incoming = feed_module.Incoming(lambda _: None)
    incoming.put((request, None) for request in some(5))
    incoming.end()
    records, _ = run(begins, incoming if come else some(5), load)
    incoming.close()
    assert (len(records), bool(slept)) == (5, gathers)


# What workers get


def test_each_worker_has_its_place_and_the_job_of_all() -> None:
    def script(worker: Played) -> None:
        worker.begin()
        work(worker)
        worker.tell("bye")

    warmup, load = [chat(index=-i) for i in range(1, 6)], ClosedLoop(concurrency=7)
    readings = Readings()
    records, workers = run(
        script, some(3), load, readings, workers=2, warmup=warmup, api="other", host="http://h:1", timeouts=SOON
    )  # fmt: skip
    assert ends(records) == dict.fromkeys(range(3), "done")
    for number, worker in enumerate(workers):
        assert worker.place == number
        assert (worker.job.workers, worker.job.api, worker.job.host) == (2, "other", "http://h:1")
        assert (worker.job.load, worker.job.timeouts, worker.job.warmup) == (load, SOON, tuple(warmup))
    (worker,) = run(script, some(3), ClosedLoop(concurrency=1), workers=9)[1]
    assert (worker.job.api, worker.job.host) == ("ollama", None)
    assert (worker.job.timeouts, worker.job.warmup) == (Timeouts(), ())


@pytest.mark.parametrize(
    ("warmed", "sending"),
    [
        ((), [0, 1]),  # by its streams
        ((99.9, 100.0), [0, 1]),
        ((40.0, 70.0), [0]),  # no more than 8,960 tokens/s: 1.4 workers
        ((None, 260.0), [0, 1, 2, 3, 4]),
        ((1e6,), [*range(7)]),  # a core is left to the main process
    ],
)
def test_as_many_workers_send_as_the_tokens_of_the_warm_up_ask_for(
    warmed: Sequence[float | None], sending: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each knows how many they are, so that every stream is some worker's; who is not needed has sent nothing."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    sent: list[int] = []

    def script(worker: Played) -> None:
        sent.append(worker.place)
        worker.begin()
        work(worker)
        worker.tell("bye")

    readings = Readings()
    with played(script, warmed) as workers:
        done = list(generate_load(some(3), ClosedLoop(concurrency=128), grace_s=600.0, readings=readings))
    assert ends(done) == dict.fromkeys(range(3), "done")
    assert sorted(sent) == sending
    assert {worker.among for worker in workers if worker.place in sending} == {len(sending)} == {readings.workers}
    assert readings.stream_tokens_per_s == max((rate for rate in warmed if rate is not None), default=None)


def test_what_a_load_says_of_itself_before_it_runs() -> None:
    fresh = Readings()
    assert (fresh.started_ns, fresh.stopped_ns) == (None, None)
    assert (fresh.in_flight, fresh.loop_lag_s, fresh.workers_died, fresh.pids) == (0, 0.0, 0, ())


def test_a_number_given_goes_before_that_of_the_requests() -> None:
    def script(worker: Played) -> None:
        worker.begin()
        work(worker)
        worker.tell("bye")

    assert len(run(script, some(9), OpenLoop(rate=1000.0), count=5)[0]) == 5
    assert len(run(script, iter(some(9)), OpenLoop(rate=1000.0), count=5)[0]) == 5


def test_workers_start_together_when_all_are_ready_and_each_replacement_as_soon_as_it_is() -> None:
    readings = Readings()
    first, one_replaced, both_replaced = threading.Event(), threading.Event(), threading.Event()
    ready_ns: dict[int, int] = {}
    starts_ns: dict[int, int] = {}

    def begin(worker: Played) -> None:
        ready_ns[worker.number] = monotonic_ns()
        starts_ns[worker.number] = worker.begin()

    def script(worker: Played) -> None:
        match worker.number:
            case 0:
                ready_ns[0] = monotonic_ns()
                worker.tell("ready")
                worker.settle(readings)
                assert worker.is_quiet(), "the others are not ready"
                first.set()
                word, starts_ns[0] = worker.receive()
                assert word == "start"
                assert both_replaced.wait(WAIT_S)
                worker.settle(readings)
                assert worker.is_quiet(), "it has started once"
            case 1 | 2:
                assert first.wait(WAIT_S)
                return begin(worker)  # and dies
            case 3:
                until(lambda: readings.workers_died == 2, "both have died")
                begin(worker)
                worker.settle(readings)
                one_replaced.set()
            case _:
                assert one_replaced.wait(WAIT_S)
                assert worker.is_quiet(), "it is not ready"
                begin(worker)
                both_replaced.set()
        work(worker)
        worker.tell("bye")

    records, workers = run(script, some(4), ClosedLoop(concurrency=3), readings, workers=3)
    assert ends(records) == dict.fromkeys(range(4), "done")
    assert len(workers) == 5
    assert set(starts_ns.values()) == {readings.started_ns}
    assert starts_ns[0] > max(ready_ns[number] for number in range(3))


# A load longer than the feed's lead


@pytest.mark.parametrize("load", [ClosedLoop(concurrency=2), OpenLoop(rate=1e6)], ids=["closed", "open"])
def test_a_load_longer_than_the_feeds_lead_is_handed_over_whole_though_its_requests_come_slowly(load: Any) -> None:
    many, slow_from = 1200, 1100
    all_taken = threading.Event()
    taken: list[int] = []

    def slow() -> Iterator[Request]:
        for request in some(many):
            if request.index == slow_from:
                assert all_taken.wait(WAIT_S)
            yield request

    def script(worker: Played) -> None:
        worker.begin()
        mine = []
        while (index := worker.take(silently=True)) is not None:
            mine.append(index)
            taken.append(index)
            if len(taken) == slow_from:
                all_taken.set()
        for index in mine:
            record(worker, index)
        worker.tell("bye")

    records, workers = run(script, slow(), load, workers=2, count=many)
    assert sorted(taken) == list(range(many))
    assert ends(records) == dict.fromkeys(range(many), "done")
    assert len(workers) == 2


def test_a_long_load_of_long_prompts_uses_its_file_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "_WRAP", 1 << 18)
    many, readings = 2000, Readings()
    sizes: list[int] = []

    def script(worker: Played) -> None:
        worker.begin()
        for index in iter(worker.take, None):
            record(worker, index)
            if index % 100 == 99:
                worker.settle(readings)
                sizes.append(os.fstat(worker.payload_fd).st_size)
        worker.tell("bye")

    records, _ = run(script, (chat("p" * 2000, i) for i in range(many)), ONE, readings)
    assert len(records) == many
    assert sizes[-1] < many * 2000 * 0.75


# What workers say


def test_each_record_is_yielded_and_what_was_returned_has_none() -> None:
    def script(worker: Played) -> None:
        worker.begin()
        for index in iter(worker.take, None):
            if index == 1:
                worker.tell("returned", index)
            elif index == 2:
                record(worker, index, due_ns=5, error=RequestError("dropped", "1 requests were in flight"))
            else:
                record(worker, index, output_text="a")
        worker.tell("record", RequestRecord(index=17, worker=0))  # a turn that nobody fed
        worker.tell("bye")

    records, _ = run(script, some(4), OpenLoop(rate=1000.0))
    assert ends(records) == {0: "done", 2: "dropped", 3: "done", 17: "done"}
    assert [record.output_text for record in records] == ["a", "", "a", ""]


def test_the_worst_lag_of_all_workers_is_told_and_the_latest_of_each() -> None:
    readings, told = Readings(), []
    second, third = threading.Event(), threading.Event()

    def script(worker: Played) -> None:
        worker.begin()
        if worker.number == 0:
            worker.tell("lag", 0.5)
            until(lambda: readings.loop_lag_s == 0.5, "the first is heard")
            second.set()
            assert third.wait(WAIT_S)
            told.append(readings.loop_lag_s)
            worker.tell("lag", 0.1)
            until(lambda: readings.loop_lag_s == 0.2, "what the first was is over")
        else:
            assert second.wait(WAIT_S)
            worker.tell("lag", 0.2)
            worker.tell("record", RequestRecord(index=worker.take() or 0))
            until(third.is_set, "the record is heard")
        work(worker)
        worker.tell("bye")

    with played(script):
        for _ in generate_load(some(3), ClosedLoop(concurrency=2), workers=2, readings=readings):
            third.set()
    assert told == [0.5]


def test_how_many_are_in_flight_is_told_and_none_when_the_load_is_closed() -> None:
    readings = Readings()

    def script(worker: Played) -> None:
        worker.begin()
        worker.counts[worker.place] = 3
        worker.settle(readings)
        record(worker, worker.take() or 0)
        worker.receive()

    with played(script) as workers:
        load = generate_load(some(5), ClosedLoop(concurrency=3), workers=1, readings=readings)
        next(load)
        assert readings.in_flight == 3
        assert readings.pids == tuple(worker.pid for worker in workers)
        load.close()  # type: ignore[attr-defined]
        assert (readings.in_flight, readings.pids) == (0, ())


# Workers that die


@pytest.mark.parametrize("load", [ClosedLoop(concurrency=3), OpenLoop(rate=1000.0)], ids=["closed", "open"])
def test_what_a_dead_worker_had_is_recorded_once_and_another_goes_on(load: Any) -> None:
    """All is handed over by then: what it leaves is free for the other one."""
    readings, before_ns = Readings(), monotonic_ns()
    counted: list[int] = []

    def script(worker: Played) -> None:
        worker.begin()
        if worker.number == 0:
            record(worker, worker.take() or 0)
            assert worker.take() == 1
            assert worker.take() == 2
            worker.tell("returned", 2)
            assert worker.take() == 3
            assert worker.take(silently=True) == 4
            worker.counts[0] = 3
        else:
            worker.settle(readings)
            counted.append(readings.in_flight)
            assert readings.pids == (worker.pid,)
            work(worker)
            worker.tell("bye")

    records, workers = run(script, some(8), load, readings)
    after_ns = monotonic_ns()
    died = dict.fromkeys([1, 3, 4], "worker_died")
    assert ends(records) == {0: "done", **died, **dict.fromkeys([5, 6, 7], "done")}
    lost = {record.index: record for record in records if record.error is not None}
    assert {record.error for record in lost.values()} == {DIED}
    assert [lost[index].worker for index in (1, 3, 4)] == [0, 0, None]
    assert readings.started_ns is not None
    if isinstance(load, OpenLoop):
        assert [lost[index].due_ns for index in (1, 3, 4)] == [readings.started_ns + i * MS for i in (1, 3, 4)]
    else:
        assert all(before_ns < (lost[index].due_ns or 0) < after_ns for index in (1, 3))
        assert lost[4].due_ns is None, "nobody knows when"
    assert (readings.workers_died, counted, len(workers)) == (1, [0], 2)


def test_workers_that_die_but_get_something_done_do_not_end_the_load() -> None:
    def script(worker: Played) -> None:
        worker.begin()
        work(worker, 1)
        if worker.number == 9:
            worker.take()
            worker.tell("bye")

    readings = Readings()
    records, workers = run(script, some(10), ONE, readings, warmup=[chat(index=-1)])
    assert ends(records) == dict.fromkeys(range(10), "done")
    assert [len(worker.job.warmup) for worker in workers] == [1] + [0] * 9, "a replacement starts at once"
    assert (readings.workers_died, len(workers)) == (9, 10)


@pytest.mark.parametrize(("gets_something_done", "deaths"), [(None, 6), (2, 8)])
def test_six_deaths_in_a_row_end_the_load(gets_something_done: int | None, deaths: int) -> None:
    def script(worker: Played) -> None:
        if worker.number == gets_something_done:
            worker.begin()
            work(worker, 1)
        else:
            worker.tell("ready")

    readings = Readings()
    with played(script) as workers, pytest.raises(LoadFailed, match="died 6 times in a row without finishing"):
        list(generate_load(some(10), ONE, workers=1, readings=readings))
    assert (readings.workers_died, len(workers)) == (deaths, deaths)


# Stopping


def test_a_stop_is_told_once_and_waited_for() -> None:
    orders, readings = Orders(), Readings()

    def script(worker: Played) -> None:
        worker.begin()
        taken = worker.take()
        assert taken is not None
        orders.stop = True
        assert worker.receive() == ("stop",)
        worker.settle(readings)
        assert worker.is_quiet(), "what is in flight has its time"
        record(worker, taken)
        assert worker.take(silently=True) == 1
        worker.tell("taken", 1)
        worker.tell("returned", 1)
        worker.tell("bye")

    before_ns = monotonic_ns()
    records, _ = run(script, (chat(index=i) for i in count()), ONE, readings, orders=orders)
    assert ends(records) == {0: "done"}, "what nobody took has no record"
    assert before_ns < (readings.stopped_ns or 0) < monotonic_ns()


@pytest.mark.parametrize(("hurry", "grace_s"), [(True, 600.0), (False, 0.0)])
def test_what_is_in_flight_after_the_grace_period_or_in_a_hurry_is_cancelled_and_heard_of(
    hurry: bool, grace_s: float
) -> None:
    orders, readings = Orders(hurry=hurry), Readings()
    theirs = RequestError("cancelled", "cancelled before the answer's end")

    def script(worker: Played) -> None:
        worker.begin()
        taken = worker.take()
        assert taken is not None
        orders.stop = True
        assert [worker.receive(), worker.receive()] == [("stop",), ("cancel",)]
        worker.settle(readings)
        assert worker.is_quiet()
        record(worker, taken, error=theirs)
        worker.tell("bye")

    ((record_),) = run(script, some(9), ONE, readings, orders=orders, grace_s=grace_s)[:1]
    assert [record.error for record in record_] == [theirs]
    assert readings.workers_died == 0


def test_a_worker_that_dies_when_the_load_is_stopped_is_not_replaced() -> None:
    orders, readings = Orders(), Readings()

    def script(worker: Played) -> None:
        worker.begin()
        worker.take()
        orders.stop = True
        assert worker.receive() == ("stop",)

    records, workers = run(script, some(9), ONE, readings, orders=orders)
    assert ends(records) == {0: "worker_died"}
    assert (readings.workers_died, len(workers)) == (1, 1)


def test_a_worker_that_still_warms_up_is_not_waited_for_when_the_load_is_stopped() -> None:
    orders, readings, heard = Orders(), Readings(), []

    def script(worker: Played) -> None:
        if worker.number == 0:
            worker.tell("ready")
            worker.settle(readings)
            orders.stop = True
        heard.append(worker.receive())

    records, _ = run(script, some(9), ClosedLoop(concurrency=2), readings, orders=orders, workers=2)
    assert (records, heard, readings.started_ns) == ([], [None, None], None)


@pytest.mark.slow
def test_workers_have_two_seconds_for_a_cancel_and_are_then_killed_with_records_for_what_they_had() -> None:
    """Three loads at once: in a hurry, after the grace period, and in a hurry long after the stop, where it obeys."""
    outcomes: dict[str, tuple[list[RequestRecord], int]] = {}

    orders = {"hurry": Orders(hurry=True), "grace": Orders(), "late": Orders()}
    readings = {name: Readings() for name in orders}

    def script(worker: Played) -> None:
        worker.begin()
        assert [worker.take(), worker.take()] == [0, 1]
        name = worker.job.host or ""
        orders[name].stop = True
        assert worker.receive() == ("stop",)
        if name == "late":
            until(lambda: monotonic_ns() > (readings["late"].stopped_ns or 0) + 2200 * MS, "time goes by")
            orders["late"].hurry = True
        assert worker.receive() == ("cancel",)
        if name == "late":
            worker.settle(readings["late"])
            for index in (0, 1):
                record(worker, index, error=RequestError("cancelled", "obeyed"))
            worker.tell("bye")
        else:
            assert worker.receive() is None

    def load_of(name: str) -> None:
        load = generate_load(
            some(9), ClosedLoop(concurrency=2), workers=1, host=name, orders=orders[name],
            readings=readings[name], grace_s=0.0 if name == "grace" else 600.0,
        )  # fmt: skip
        outcomes[name] = list(load), monotonic_ns() - (readings[name].stopped_ns or 0)

    with played(script):
        threads = [threading.Thread(target=load_of, args=(name,)) for name in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for name, (records, took_ns) in outcomes.items():
        assert Counter(record.error for record in records) == {
            RequestError("cancelled", "obeyed" if name == "late" else "stopped"): 2
        }
        assert [(record.index, record.worker) for record in records] == [(0, 0), (1, 0)]
        assert took_ns > 2000 * MS
