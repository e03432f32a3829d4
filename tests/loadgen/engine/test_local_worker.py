"""A worker process without its parent, which the test plays: what it sends and when, and what it says of it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count, pairwise
from time import monotonic_ns
from typing import Any, ClassVar

import pytest

from loadgen.engine.feed import InFlight
from loadgen.engine.worker import start_offset_ns
from loadgen.types import NS, ClosedLoop, OpenLoop, Request, RequestError, RequestRecord
from tests.support.halves import OPTIONAL, WAIT_S, Alone, alone, fill_with_room_for, holding, until
from tests.support.scripted_server import DONE, Peer, Scripted, answers, chat, said

MS = 1_000_000
NOW, IN_A_MINUTE = 0, 60 * NS
ANSWER = answers(said("a"), DONE)
CALL = said(tool_calls=[{"function": {"name": "f", "arguments": {}}}])


def some(many: int) -> list[Request]:
    return [chat(f"question {index}", index) for index in range(many)]


def records(heard: Sequence[Any]) -> dict[int, RequestRecord]:
    """By index; each that was taken has one, or was returned."""
    found = [message[1] for message in heard if message[0] == "record"]
    ends = [record.index for record in found] + [message[1] for message in heard if message[0] == "returned"]
    assert sorted(ends) == sorted(message[1] for message in heard if message[0] == "taken")
    return {record.index: record for record in found}


def kinds(heard: Sequence[Any]) -> dict[int, str]:
    return {index: "done" if r.error is None else r.error.kind for index, r in sorted(records(heard).items())}


class Results(dict[str, str]):
    """What tools answer: the very object that the test has, also in the worker; so that the test can act there."""

    kept: ClassVar[list[Results]] = []

    def __init__(self, *, taken: Callable[[], object] = int, asked: Callable[[], object] = int) -> None:
        super().__init__()
        self.taken, self.asked = taken, asked

    def __reduce__(self) -> Any:
        self.kept.append(self)
        return Results.of, (len(self.kept) - 1,)

    @staticmethod
    def of(number: int) -> Results:
        Results.kept[number].taken()
        return Results.kept[number]

    def get(self, *_: Any) -> str:
        self.asked()
        return "7"


# Before the start


def test_a_worker_warms_up_connects_tidies_up_and_then_waits_for_the_start() -> None:
    """Its job may come in parts: a warm-up may have a long prompt."""
    share, others = [chat("w" * 200_000, -1), chat("warm", -2)], chat("of another worker", -3)
    warmup = [others, share[0], others, others, share[1]]
    resource = pytest.importorskip("resource")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    load = ClosedLoop(concurrency=7)  # of which the second of three workers has the second and the fifth
    with Scripted(ANSWER) as server, alone(load, server.url, some(1), worker=1, workers=3, warmup=warmup) as worker:
        assert worker.receive() == ("ready",)
        assert [len(asked.body["messages"][0]["content"]) for asked in server.asked] == [200_000, 4]
        until(lambda: server.connections == 2, "a connection for each stream")
        assert worker.tidied == ["collected", "frozen"]
        assert [sys.modules[name] for name in OPTIONAL] == [None, None], "nothing is imported that nobody uses"
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most), "as many connections as the system allows"
        worker.tell("start", monotonic_ns())
        heard = worker.rest()
        assert server.connections == 2
    assert [message[0] for message in heard] == ["taken", "record"]
    assert kinds(heard) == {0: "done"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its end of the socket goes with it
def test_a_worker_whose_parent_was_gone_before_it_had_its_job_ends() -> None:
    with alone(ClosedLoop(concurrency=1), None, told=False) as worker:
        worker.sock.close()
        worker.thread.join(WAIT_S)
        assert not worker.thread.is_alive()
        assert worker.exits == []


# A closed loop


def test_as_many_are_in_flight_as_a_worker_has_streams_and_that_is_what_it_counts() -> None:
    load, many = ClosedLoop(concurrency=5), 7  # of which the second of two workers has the second and the fourth
    heard: list[Any] = []
    with holding() as (server, answer), alone(load, server.url, some(many), worker=1, workers=2) as worker:
        worker.start()
        for asked, in_flight in [(2, 2), (3, 2), (4, 2), (5, 2), (6, 2), (7, 2), (7, 1)]:
            until(lambda asked=asked: len(server.asked) == asked, "it is sent")  # type: ignore[misc]
            until(lambda wanted=in_flight: worker.counts.total() == wanted, "it counts")  # type: ignore[misc]
            answer.release()
            heard += worker.receive_until("record")
        heard += worker.rest()
    assert kinds(heard) == dict.fromkeys(range(many), "done")
    assert {record.worker for record in records(heard).values()} == {1}


def test_no_stream_begins_before_its_turn_after_the_common_start() -> None:
    load = ClosedLoop(concurrency=6)
    with holding() as (server, answer), alone(load, server.url, some(6)) as worker:
        worker.start(in_s=0.05)
        until(lambda: len(server.asked) == 6, "all are sent")
        answer.release(6)
        sent_ns = sorted(record.sent_ns or 0 for record in records(worker.rest()).values())
        turns_ns = sorted(start_offset_ns(slot, 6) for slot in range(6))
        assert all(sent >= worker.start_ns + turn for sent, turn in zip(sent_ns, turns_ns, strict=True))


@pytest.mark.parametrize(("duration_s", "at_most", "at_least"), [(0.05, 1, 0), (60.0, 3, 3)])
def test_no_request_is_sent_after_the_duration(duration_s: float, at_most: int, at_least: int) -> None:
    load = ClosedLoop(concurrency=1, duration_s=duration_s)
    with holding() as (server, answer), alone(load, server.url, some(3)) as worker:
        worker.start()
        until(lambda: monotonic_ns() > worker.start_ns + 60 * MS, "time goes by")
        answer.release(3)
        assert at_least <= len(records(worker.rest())) <= at_most


def test_streams_that_find_the_feed_empty_go_on_when_it_has_something_again() -> None:
    load = ClosedLoop(concurrency=3)
    with holding() as (server, answer), alone(load, server.url, some(5), filled=False) as worker:
        worker.start()
        threading.Event().wait(0.05)  # in which all have asked
        worker.feed.fill()
        until(lambda: len(server.asked) == 3, "each stream sends")
        answer.release(5)
        assert kinds(worker.rest()) == dict.fromkeys(range(5), "done")


def test_the_turn_that_follows_from_an_answer_is_sent_told_and_counted_like_any_request() -> None:
    answer = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        while peer.read() is not None and answer.acquire(timeout=WAIT_S):
            peer.answer(CALL if len(server.asked) == 1 else said("7"), DONE)

    requests = [chat("call f", 4, tool_results={"f": "7"})]
    with Scripted(script) as server, alone(ClosedLoop(concurrency=1), server.url, requests) as worker:
        worker.start()
        heard = []
        for turn in (1, 2):
            until(lambda turn=turn: len(server.asked) == turn, "it is sent")  # type: ignore[misc]
            assert worker.counts.total() == 1
            answer.release()
            heard += worker.receive_until("record")
        assert worker.rest() == []
    assert [(word, getattr(what, "index", what)) for word, what in heard] == [
        ("taken", 4), ("record", 4), ("taken", 5), ("record", 5)
    ]  # fmt: skip
    assert kinds(heard) == {4: "done", 5: "done"}


# An open loop


def test_each_is_due_at_its_offset_from_the_start_and_not_sent_before() -> None:
    due = [0, 30 * MS, 31 * MS]
    with Scripted(ANSWER) as server, alone(OpenLoop(rate=1.0), server.url, some(3), due=due) as worker:
        worker.start(in_s=0.03)
        heard = worker.rest()
    assert kinds(heard) == dict.fromkeys(range(3), "done")
    for index, record in records(heard).items():
        assert record.due_ns == worker.start_ns + due[index]
        assert record.sent_ns is not None
        assert record.sent_ns >= record.due_ns


def test_a_request_is_prepared_before_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as in flight from then on. Some may be late, on a machine that has other things to do."""
    due = [i * 5 * MS for i in range(1, 51)]
    counted: list[tuple[int, int]] = []
    put = InFlight.__setitem__

    def set_and_note(counts: InFlight, worker: int, many: int) -> None:
        put(counts, worker, many)
        counted.append((many, monotonic_ns()))

    monkeypatch.setattr(InFlight, "__setitem__", set_and_note)
    with Scripted(ANSWER) as server, alone(OpenLoop(rate=1.0), server.url, some(50), due=due) as worker:
        worker.start()
        assert len(records(worker.rest())) == 50
        begun_ns = [at_ns for (before, _), (many, at_ns) in pairwise([(0, 0), *counted]) if many > before]
        assert any(begun < worker.start_ns + due_ns for begun, due_ns in zip(begun_ns, due, strict=True))


def test_a_loop_that_is_late_sends_each_before_it_has_looked_at_all_the_others() -> None:
    taken_ns: list[int] = []
    results = Results(taken=lambda: taken_ns.append(monotonic_ns()))
    requests = [chat(index=i, tool_results=results) for i in range(40)]
    with Scripted(ANSWER) as server, alone(OpenLoop(rate=1.0), server.url, requests, due=[NOW] * 40) as worker:
        worker.start()
        heard = worker.rest()
    assert kinds(heard) == dict.fromkeys(range(40), "done")
    assert (records(heard)[0].sent_ns or 0) < taken_ns[-1]
    assert [message[0] for message in heard].index("record") > 1, "nor does it wait for the first answer"


@pytest.mark.parametrize(("limit", "sent"), [(None, 3), (2, 2)])
def test_up_to_the_limit_are_in_flight_and_no_more(limit: int | None, sent: int) -> None:
    load = OpenLoop(rate=1.0, max_in_flight=limit)
    with holding() as (server, answer), alone(load, server.url, some(3), due=[NOW] * 3) as worker:
        worker.start()
        heard = [] if limit is None else worker.receive_until("record")
        until(lambda: len(server.asked) == sent, "those within the limit are sent")
        assert worker.counts.total() == sent
        answer.release(3)
        heard += worker.rest()
    assert list(kinds(heard).values()) == ["done"] * sent + ["dropped"] * (3 - sent)


@pytest.mark.parametrize("freed", [True, False])
def test_a_request_without_a_place_is_looked_at_again_when_it_is_due(
    monkeypatch: pytest.MonkeyPatch, freed: bool
) -> None:
    """Another worker has the only place, at least at the first look."""

    def then(worker: Alone) -> None:
        if freed:
            worker.counts[1] = 0

    server, worker, heard = without_a_place(monkeypatch, then)
    (found,) = records(heard).values()
    assert len(server.asked) == freed
    assert (found.worker, found.due_ns) == (0, worker.start_ns + 20 * MS)
    if freed:
        assert found.error is None
    else:
        assert (found.sent_ns, found.error) == (None, RequestError("dropped", "1 requests were in flight"))


def test_a_request_that_waits_for_a_place_when_the_load_is_stopped_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The word may come too late on a machine that has other things to do: not each time."""
    for _ in range(20):
        _, _, heard = without_a_place(monkeypatch, lambda worker: worker.tell("stop"))
        if records(heard) == {}:
            return
    pytest.fail("it was dropped each time")


def without_a_place(
    monkeypatch: pytest.MonkeyPatch, then: Callable[[Alone], None]
) -> tuple[Scripted, Alone, list[Any]]:
    """One request for which there is no place at the first look, after which something happens."""
    total, looks = InFlight.total, count()

    def look(counts: InFlight) -> int:
        found = total(counts)
        if next(looks) == 0:
            then(worker)
        return found

    load = OpenLoop(rate=1.0, max_in_flight=1)
    with (
        monkeypatch.context() as patch,
        Scripted(ANSWER) as server,
        alone(load, server.url, some(1), due=[20 * MS], workers=2) as worker,
    ):
        worker.counts[1] = 1
        patch.setattr(InFlight, "total", look)
        worker.start()
        heard = [worker.receive(), worker.receive()]
        worker.counts[1] = 0
        assert worker.rest() == []
    return server, worker, heard


# Stopping


def test_a_stopped_closed_loop_finishes_what_is_in_flight_and_sends_nothing_more() -> None:
    with holding() as (server, answer), alone(ClosedLoop(concurrency=1), server.url, some(50)) as worker:
        worker.start()
        answer.release()
        heard = worker.receive_until("record")
        worker.tell("stop")
        answer.release(50)
        heard += worker.rest()
    assert set(kinds(heard).values()) == {"done"}
    assert len(records(heard)) <= 3, "the word may travel while one more is sent"


def test_a_stopped_open_loop_returns_what_is_not_due_and_begins_no_further_turn() -> None:
    answer = threading.Event()

    def script(peer: Peer) -> None:
        while peer.read() is not None and answer.wait(WAIT_S):
            peer.answer(CALL, DONE)

    requests = [chat("call f", 0, tool_results={"f": "7"}), *(chat(index=i) for i in range(2, 6))]
    due = [NOW] + [IN_A_MINUTE] * 4
    with Scripted(script) as server, alone(OpenLoop(rate=1.0), server.url, requests, due=due) as worker:
        worker.start()
        until(lambda: len(server.asked) == 1, "the first is sent")
        worker.tell("stop")
        heard = worker.receive_until("returned")
        answer.set()
        heard += worker.rest()
    assert heard[:-1] == [("taken", 0), ("taken", 2), ("returned", 2)]
    assert kinds(heard) == {0: "done"}
    following = records(heard)[0].following
    assert following is not None, "the turn is known, and can be sent when the load is continued"
    assert following.index == 1


@pytest.mark.parametrize("load", [ClosedLoop(concurrency=2), OpenLoop(rate=1.0)], ids=["closed", "open"])
def test_a_stop_reaches_a_worker_that_waits_for_the_feed(load: Any) -> None:
    due = None if isinstance(load, ClosedLoop) else [NOW] * 3
    with Scripted(ANSWER) as server, alone(load, server.url, some(3), due=due, filled=False) as worker:
        worker.start()
        threading.Event().wait(0.05)  # in which it has asked
        worker.tell("stop")
        assert worker.rest() == []


def test_a_cancel_ends_what_is_in_flight_at_once_and_nothing_more_is_sent() -> None:
    with holding() as (server, _), alone(ClosedLoop(concurrency=2), server.url, some(5)) as worker:
        worker.start()
        until(lambda: len(server.asked) == 2, "two are sent")
        worker.tell("cancel")
        assert kinds(worker.rest()) == {0: "cancelled", 1: "cancelled"}
        assert len(server.asked) == 2


@pytest.mark.parametrize("after", range(4))
def test_whenever_a_load_is_cancelled_each_request_that_was_taken_has_its_end(after: int) -> None:
    load, due = OpenLoop(rate=1.0, max_in_flight=3), [i * MS for i in range(30)]
    with Scripted(ANSWER) as server, alone(load, server.url, some(30), due=due) as worker:
        worker.start()
        heard = [worker.receive() for _ in range(after)]
        worker.tell("cancel")
        heard += worker.rest()
    assert set(kinds(heard).values()) <= {"done", "dropped", "cancelled"}


def test_a_request_that_is_cancelled_before_it_was_begun_has_its_record() -> None:
    """One stream makes the turn after an answer; just then the other, which waits for the feed, gets a request, and
    the worker the word to cancel."""

    def both() -> None:
        worker.feed.fill()
        worker.tell("cancel")

    def script(peer: Peer) -> None:
        peer.read()
        until(lambda: monotonic_ns() > worker.start_ns + 2 * 5 * MS, "both streams have begun")
        peer.answer(CALL, DONE)
        peer.read()

    requests = [chat("call f", 0, tool_results=Results(asked=both)), chat("other", 2)]
    with Scripted(script) as server, alone(ClosedLoop(concurrency=2), server.url, requests, filled=False) as worker:
        fill_with_room_for(worker.feed, 1)
        worker.start()
        heard = worker.rest()
    assert kinds(heard) == {0: "done", 1: "cancelled", 2: "cancelled"}
    record = records(heard)[2]  # on a busy machine it may have gone out before the word came
    when = "it was sent" if record.sent_ns is None else "the answer's end"
    assert record.error == RequestError("cancelled", f"cancelled before {when}")


# What it says of itself, and how it ends


@pytest.mark.slow
def test_a_worker_that_waits_sleeps_and_says_once_a_second_how_late_its_event_loop_was() -> None:
    held_up_s = 0.3
    results = Results(taken=lambda: time.sleep(held_up_s))
    requests = [chat(index=0, tool_results=results), *some(3)[1:]]
    with holding() as (server, answer), alone(ClosedLoop(concurrency=1), server.url, requests, filled=False) as worker:
        worker.start()
        threading.Event().wait(0.05)  # in which it has found nothing: it listens for more
        worker.feed.fill()
        lags = [worker.receive_lag()]
        assert lags[0] > held_up_s - 0.1, "it looks ten times a second"
        heard_ns = [monotonic_ns()]
        cpu = time.pthread_getcpuclockid(worker.thread.ident or 0)
        cpu_s = time.clock_gettime(cpu)
        while len(lags) < 2 or min(b - a for a, b in pairwise(heard_ns)) > 1.5 * NS:
            lags.append(worker.receive_lag())
            heard_ns.append(monotonic_ns())
            # Each has its second, and what held the loop up came on top of that.
            assert (heard_ns[-1] - worker.start_ns) / NS >= len(lags) + sum(lags)
            assert len(lags) < 6, "never once a second"
        assert time.clock_gettime(cpu) - cpu_s < 0.5
        answer.release(3)
        assert kinds(worker.rest()) == dict.fromkeys(range(3), "done")


def test_a_record_reaches_a_parent_that_is_behind() -> None:
    """More than the socket holds: the worker ends only when it is read."""
    text = "a" * 1_000_000
    with (
        Scripted(answers(said(text), DONE)) as server,
        alone(ClosedLoop(concurrency=1), server.url, some(1)) as worker,
    ):
        worker.start()
        worker.thread.join(0.3)  # in which it would have ended
        assert records(worker.rest())[0].output_text == text


@pytest.mark.parametrize("unread", [False, True])
def test_a_worker_leaves_when_its_parent_is_lost(unread: bool) -> None:
    with holding() as (server, answer), alone(ClosedLoop(concurrency=1), server.url, some(1)) as worker:
        worker.start()
        until(lambda: len(server.asked) == 1, "it is sent")
        if not unread:
            assert worker.receive() == ("taken", 0)
        worker.sock.close()
        until(lambda: worker.exits == [1], "it leaves, though an answer is to come")
        answer.release()
