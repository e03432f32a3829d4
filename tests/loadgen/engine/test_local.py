"""Real worker processes against the simulated server: how many are in flight, and that no request is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count, islice, pairwise
from pathlib import Path
from time import monotonic_ns, sleep
from typing import Any

import httpx
import psutil
import pytest

import loadgen.engine.local as engine_module
from loadgen import ClosedLoop, LoadFailed, OpenLoop, Orders, Readings, Request, RequestRecord, generate_load
from loadgen.arrivals import due_offsets
from loadgen.engine import started_ahead
from loadgen.engine.child import spawn
from loadgen.simulator import SimulatorProcess
from tests.support.halves import descriptors
from tests.support.scripted_server import DONE, SOON, Peer, Scripted, chat, said
from tests.support.simulators import FAST

MS = 1_000_000
MODELS = {
    "sim:fast": FAST,
    "steady": replace(FAST, tokens_per_s=200.0),
    "narrow": replace(FAST, tokens_per_s=100.0, parallel=1),
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with SimulatorProcess(MODELS) as process:
        yield process.url


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """No test may leave a process or a descriptor behind."""
    before, children = descriptors(), processes()
    yield
    assert processes() == children
    assert descriptors() == before


def processes() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def some(many: int, model: str = "steady", tokens: int = 10) -> list[Request]:
    return [chat(f"question {i}", i, model, options={"num_predict": tokens}) for i in range(many)]


def endless(model: str = "steady", tokens: int = 10) -> Iterator[Request]:
    for i in count():
        yield chat(f"question {i}", i, model, options={"num_predict": tokens})


def run(requests: Iterable[Request], load: Any, url: str, **more: Any) -> list[RequestRecord]:
    return list(generate_load(requests, load, host=url, **{"timeouts": SOON, **more}))


def kinds(records: Iterable[RequestRecord]) -> Counter[str]:
    return Counter("done" if record.error is None else record.error.kind for record in records)


def indices(records: Iterable[RequestRecord]) -> list[int]:
    return sorted(record.index for record in records)


def in_flight_at_sends(records: Iterable[RequestRecord]) -> list[int]:
    """At each send, in order: how many were in flight, itself included."""
    spans = sorted((r.sent_ns, r.end_ns) for r in records if r.sent_ns is not None and r.end_ns is not None)
    return [sum(1 for sent, end in spans if sent <= at < end) for at, _ in spans]


# Closed loop


def test_exactly_so_many_are_in_flight_until_the_work_is_used_up() -> None:
    """A server that answers one at a time, when it is told to, counts what it holds."""
    concurrency, many = 5, 14
    answer = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        while peer.read() is not None:
            answer.acquire(timeout=20)
            peer.answer(said("a"), DONE)

    records: list[RequestRecord] = []
    tick = threading.Event()
    with Scripted(script) as server:
        load = generate_load(some(many), ClosedLoop(concurrency=concurrency), host=server.url, workers=2, timeouts=SOON)
        loading = threading.Thread(target=lambda: records.extend(load))
        loading.start()
        for answered in range(many):
            wanted = min(concurrency + answered, many)
            for _ in range(4000):
                if len(server.asked) >= wanted:
                    break
                tick.wait(0.005)
            tick.wait(0.02)
            assert len(server.asked) == wanted
            answer.release()
        loading.join()
    assert indices(records) == list(range(many))
    assert kinds(records) == {"done": many}
    assert {record.worker for record in records} == {0, 1}
    assert max(in_flight_at_sends(records)) == concurrency


def test_connections_stand_before_the_start(url: str) -> None:
    readings = Readings()
    records = run(some(8, "sim:fast"), ClosedLoop(concurrency=4), url, workers=1, readings=readings)
    assert {record.connected_ns for record in records} == {None}
    assert readings.started_ns is not None
    for record in records:
        assert record.sent_ns is not None
        assert record.due_ns == record.sent_ns >= readings.started_ns


@pytest.mark.slow
def test_a_slow_answer_holds_up_its_own_slot_only() -> None:
    """The first answer comes when all the others have been given, however long that takes."""
    others, came = threading.Semaphore(0), []

    def script(peer: Peer) -> None:
        while (asked := peer.read()) is not None:
            slow = asked.body["messages"][0]["content"] == "question 0"
            came.extend(others.acquire(timeout=20) for _ in range(11 if slow else 0))
            peer.answer(said("a"), DONE)
            others.release()

    with Scripted(script) as server:
        records = run(some(12), ClosedLoop(concurrency=2), server.url, workers=1)
    assert kinds(records) == {"done": 12}
    assert came == [True] * 11


def test_the_duration_ends_an_endless_closed_loop(url: str) -> None:
    readings = Readings()
    records = run(endless(), ClosedLoop(concurrency=4, duration_s=0.3), url, workers=1, readings=readings)
    assert readings.started_ns is not None
    assert indices(records) == list(range(len(records)))
    assert kinds(records) == {"done": len(records)}
    sent = [record.sent_ns - readings.started_ns for record in records if record.sent_ns is not None]
    assert len(sent) == len(records) > 8
    assert max(sent) < 1300 * MS


def test_no_requests_at_all_is_an_end(url: str) -> None:
    assert run([], ClosedLoop(concurrency=3), url, workers=1) == []
    assert run([], OpenLoop(rate=5.0), url, workers=1) == []


@pytest.mark.slow
def test_all_start_together_when_the_slowest_has_warmed_up_which_is_not_yielded(url: str) -> None:
    def truth() -> Any:
        return httpx.get(url + "/truth", timeout=20).json()["requests"]

    warmup = [chat("warm", -1, "sim:fast"), chat("warm", -2, "steady", options={"num_predict": 100})]
    readings = Readings()
    before = len(truth())
    records = run(some(6), ClosedLoop(concurrency=2), url, workers=2, warmup=warmup, readings=readings)
    assert indices(records) == list(range(6))
    asked = truth()[before:]
    assert len(asked) == 8
    assert readings.started_ns is not None
    warm = [entry["received_ns"] < readings.started_ns for entry in asked]
    assert warm == [True] * 2 + [False] * 6
    assert max(entry["done_ns"] for entry in asked[:2]) < readings.started_ns


# Open loop


@pytest.mark.slow
def test_each_is_sent_when_due_striped_over_the_workers_at_really_constant_gaps(url: str) -> None:
    readings = Readings()
    records = run(some(40, "sim:fast", 2), OpenLoop(rate=100.0), url, workers=2, readings=readings)
    records.sort(key=lambda record: record.index)
    assert indices(records) == list(range(40))
    assert kinds(records) == {"done": 40}
    due = [record.due_ns or 0 for record in records]
    assert {b - a for a, b in pairwise(due)} == {10 * MS}
    assert due[0] == readings.started_ns
    assert [record.worker for record in records] == [i % 2 for i in range(40)]
    lags = sorted(record.send_lag_s or 0.0 for record in records)
    assert lags[0] >= 0
    assert lags[20] < 0.5


def test_slow_answers_do_not_hold_up_what_is_due(url: str) -> None:
    records = run(some(20, "narrow", 2), OpenLoop(rate=200.0), url, workers=1)
    assert kinds(records) == {"done": 20}
    assert max(in_flight_at_sends(records)) > 8


@pytest.mark.slow
def test_beyond_the_cap_requests_are_dropped_and_never_sent(url: str) -> None:
    load = OpenLoop(rate=200.0, max_in_flight=3)
    records = run(some(40, "steady", 20), load, url, workers=2)
    assert indices(records) == list(range(40))
    assert set(kinds(records)) == {"done", "dropped"}
    assert kinds(records)["dropped"] > 15
    for record in records:
        if record.error is not None:
            assert (record.sent_ns, record.chunk_ns, record.ttft_s) == (None, (), None)
            assert record.due_ns is not None
            assert record.error.message == "3 requests were in flight"
    assert max(in_flight_at_sends(records)) <= 3


def test_the_duration_ends_an_endless_open_loop(url: str) -> None:
    load = OpenLoop(rate=100.0, arrival="gamma", burstiness=0.5, duration_s=0.2, seed=5)
    readings = Readings()
    records = run(endless("sim:fast", 2), load, url, workers=1, readings=readings)
    assert readings.started_ns is not None
    due = sorted((record.due_ns or 0) - readings.started_ns for record in records)
    assert due == due_offsets(load, None)
    assert kinds(records) == {"done": len(due)}


def test_an_open_loop_takes_its_number_from_the_requests_or_says_it_needs_one(url: str) -> None:
    with pytest.raises(ValueError, match="number of requests or a duration"):
        next(generate_load(endless(), OpenLoop(rate=1.0), host=url))
    assert len(run(endless("sim:fast", 1), OpenLoop(rate=200.0), url, count=5)) == 5


# Workers that die


@pytest.mark.slow
def test_a_killed_workers_requests_are_recorded_and_another_takes_over(url: str) -> None:
    orders, readings = Orders(), Readings()
    records: list[RequestRecord] = []
    died: list[RequestRecord] = []
    killed = False
    load = ClosedLoop(concurrency=6)
    requests = islice(endless(), 2000)
    how: Any = {"host": url, "workers": 2, "timeouts": SOON, "orders": orders, "readings": readings}
    for record in generate_load(requests, load, **how):
        records.append(record)
        if not killed and readings.in_flight == 6:
            killed = True
            os.kill(readings.pids[0], signal.SIGKILL)
        if record.error is not None:
            died.append(record)
        elif died and record.worker == 0:
            orders.stop = True
    assert indices(records) == list(range(len(records)))
    assert readings.workers_died == 1
    assert kinds(died) == {"worker_died": len(died)}
    assert 1 <= len(died) <= 3
    assert all(record.due_ns is not None and record.sent_ns is None for record in died)
    assert max(in_flight_at_sends(records)) <= 6
    assert readings.in_flight == 0


@pytest.mark.slow
def test_what_a_killed_worker_had_in_flight_does_not_count_against_the_cap_for_ever(url: str) -> None:
    requests = [chat("hangs", i, "fault:hang-before") for i in range(4)]
    requests += [replace(request, index=request.index + 4) for request in some(80, "sim:fast", 1)]
    readings = Readings()
    records: list[RequestRecord] = []
    load = OpenLoop(rate=100.0, max_in_flight=4)
    for record in generate_load(requests, load, host=url, workers=1, timeouts=SOON, readings=readings):
        if not records:  # the first that was dropped: four are in flight
            os.kill(readings.pids[0], signal.SIGKILL)
        records.append(record)
    assert indices(records) == list(range(84))
    assert records[0].error is not None
    assert records[0].error.kind == "dropped"
    assert {record.index for record in records if record.error and record.error.kind == "worker_died"} >= {0, 1, 2, 3}
    assert kinds(records)["done"] > 0


def test_workers_that_always_die_end_the_load_instead_of_looping(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "short_lived.py").write_text("def main(sock, api):\n    sock.recv(1)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(engine_module, "spawn", lambda _, api: spawn("short_lived:main", api))
    readings = Readings()
    with pytest.raises(LoadFailed, match="died 6 times in a row"):
        run(some(10), ClosedLoop(concurrency=4), url, workers=2, readings=readings)
    assert readings.workers_died == 6


def test_an_exception_of_the_users_iterable_reaches_the_caller(url: str) -> None:
    def broken() -> Iterator[Request]:
        yield from some(3, "sim:fast", 1)
        raise KeyError("theirs")

    with pytest.raises(KeyError, match="theirs"):
        run(broken(), ClosedLoop(concurrency=2), url)


def test_workers_that_were_started_ahead_are_those_that_send_and_others_end_with_the_block(url: str) -> None:
    before, readings = processes(), Readings()
    with started_ahead("local", ClosedLoop(concurrency=2), workers=3):
        (ahead,) = {frozenset(processes() - before)}
        assert len(ahead) == 2, "no more than streams"
        for record in generate_load(some(4), ClosedLoop(concurrency=1), host=url, readings=readings, timeouts=SOON):
            assert record.error is None
            assert set(readings.pids) < ahead
    assert processes() == before


def test_a_worker_that_died_before_its_load_is_replaced(url: str) -> None:
    before, readings = processes(), Readings()
    with started_ahead("local", ClosedLoop(concurrency=1)):
        (pid,) = processes() - before
        os.kill(pid, signal.SIGKILL)
        assert indices(list(generate_load(some(2), ClosedLoop(concurrency=1), host=url, readings=readings))) == [0, 1]
        assert readings.workers_died == 1


# Stopping


def stop_after(records: int, url: str, load: Any, requests: Iterable[Request], *, hurry: bool = False,
               grace_s: float = 20.0) -> tuple[list[RequestRecord], int]:  # fmt: skip
    """All records, and when the load was told to stop."""
    orders = Orders()
    got: list[RequestRecord] = []
    stopped_ns = 0
    for record in generate_load(requests, load, host=url, workers=2, timeouts=SOON, grace_s=grace_s, orders=orders):
        got.append(record)
        if len(got) == records:
            stopped_ns = monotonic_ns()
            orders.hurry, orders.stop = hurry, True
    return got, stopped_ns


@pytest.mark.slow
@pytest.mark.parametrize("load", [ClosedLoop(concurrency=4), OpenLoop(rate=60.0, duration_s=60.0)])
def test_after_a_stop_nothing_new_is_sent_and_what_is_in_flight_finishes(url: str, load: Any) -> None:
    records, stopped_ns = stop_after(6, url, load, endless(tokens=20))
    assert kinds(records) == {"done": len(records)}
    assert 6 < len(records) < 60
    assert len(set(indices(records))) == len(records)
    # The word travels to the workers while they may send once more.
    assert max(record.sent_ns or 0 for record in records) < stopped_ns + 3000 * MS
    assert max(record.end_ns or 0 for record in records) > stopped_ns


@pytest.mark.parametrize("hurry", [True, False])
def test_what_does_not_finish_is_cancelled_with_a_record(url: str, hurry: bool) -> None:
    requests = [*some(2, "sim:fast", 1), *(chat("hangs", i, "fault:hang-before") for i in range(2, 50))]
    records, _ = stop_after(2, url, ClosedLoop(concurrency=6), requests, hurry=hurry, grace_s=60 if hurry else 0.1)
    assert kinds(records)["done"] == 2
    assert set(kinds(records)) == {"done", "cancelled"}
    assert len(records) <= 8
    assert len(set(indices(records))) == len(records)


def test_stopping_before_the_start_sends_nothing(url: str) -> None:
    assert run(endless(), ClosedLoop(concurrency=4), url, orders=Orders(stop=True)) == []


def test_closing_the_generator_early_leaves_nothing_behind(url: str) -> None:
    readings, children = Readings(), processes()
    load = generate_load(endless(), ClosedLoop(concurrency=2), host=url, workers=4, timeouts=SOON, readings=readings)
    next(load)
    assert processes() - children == set(readings.pids)
    assert len(readings.pids) == 2  # no more workers than slots
    load.close()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_what_a_slow_consumer_has_not_read_yet_does_not_go_with_the_workers(url: str) -> None:
    """Found by a benchmark: the last records were lost in the buffers of workers that had ended."""
    for many in (80, 100, 120):  # more than the socket holds, less than makes the writer wait
        httpx.post(f"{url}/truth/reset")
        load = generate_load(some(many, "sim:fast", 60), ClosedLoop(concurrency=16), host=url, timeouts=SOON)
        records = [next(load)]
        for _ in range(300):
            if httpx.get(f"{url}/truth?summary=1").json()["totals"]["completed"] == many:
                break
            sleep(0.1)
        sleep(0.4)  # time to end, if a worker would
        assert kinds([*records, *load]) == {"done": many}
