"""The feed hands each request to exactly one taker, whole, however the takers take turns."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.engine import feed as feed_module
from loadgen.engine.feed import Feed, Incoming, InFlight, take
from loadgen.types import Request
from tests.support.halves import fill_with_room_for

TOKENS_PER_PIPE = feed_module._AHEAD
"""More on a system where a pipe's size cannot be set."""


def request(index: int, size: int = 0) -> Request:
    return Request(index=index, model="m", prompt=f"{index}:" + chr(97 + index % 26) * size)


@contextlib.contextmanager
def opened(feed: Feed) -> Iterator[Feed]:
    try:
        yield feed
    finally:
        feed.close()


def take_all(feed: Feed, worker: int = 0, at_most: int = 100_000) -> list[Request]:
    got: list[Request] = []
    with contextlib.suppress(BlockingIOError):
        while len(got) < at_most and (taken := take(feed.reader(worker), feed.payload_fd)) is not None:
            feed.taken(taken[0].index)
            got.append(taken[0])
    return got


def test_several_takers_get_each_request_exactly_once() -> None:
    with opened(Feed((request(i) for i in range(20)), None, 3)) as feed:
        feed.fill()
        got = [take(feed.reader(turn % 3), feed.payload_fd) for turn in range(20)]
        assert [taken for taken in got if taken is not None] == [(request(i), None) for i in range(20)]
        assert {take(feed.reader(worker), feed.payload_fd) for worker in range(3)} == {None}


@pytest.mark.parametrize("due", [None, [0, 10, 20]])
def test_a_request_that_may_not_be_sent_yet_waits_until_it_may_or_none_is_left_to_be_taken(due: Any) -> None:
    held = iter([request(0), request(1), None, None, request(2), None, None, request(9)])
    with opened(Feed(held, due, 1)) as feed:
        feed.fill()
        assert (feed.waits, feed.writer) == (True, None)
        assert [each.index for each in take_all(feed, at_most=1)] == [0]
        feed.fill()
        assert feed.waits
        feed.fill()
        assert [each.index for each in take_all(feed)] == [1, 2]
        assert not feed.ran_dry
        feed.fill()
        assert (feed.waits, feed.ran_dry, feed.writer) == (False, True, None)
        assert take(feed.reader(0), feed.payload_fd) is None, "the end"


def test_a_closed_loops_worker_that_is_free_takes_whatever_there_is() -> None:
    with opened(Feed([request(i) for i in range(20)], None, 3)) as feed:
        feed.fill()
        assert [taken.index for taken in take_all(feed, 1)] == list(range(20))


def test_the_pipe_to_wait_for_has_room_until_it_is_full_and_again_when_one_was_taken() -> None:
    """An open loop's pipes are filled in turn: the one that is full holds up the others."""
    with opened(Feed((request(i) for i in count()), list(range(100_000)), 2)) as feed:
        assert is_writable(feed)
        feed.fill()
        assert not is_writable(feed)
        full = feed.writer
        take_all(feed, 1)
        assert (feed.writer, is_writable(feed)) == (full, False)
        take_all(feed, 0)
        assert is_writable(feed)
        feed.end()
        assert feed.writer is None


def is_writable(feed: Feed) -> bool:
    assert feed.writer is not None
    return select.select([], [feed.writer], [], 0)[1] == [feed.writer]


def test_an_open_loops_requests_are_striped_with_their_due_times() -> None:
    due = [i * 10 for i in range(10)]
    with opened(Feed((request(i) for i in range(10)), due, 3)) as feed:
        feed.fill()
        for worker in range(3):
            for index in range(worker, 10, 3):
                assert take(feed.reader(worker), feed.payload_fd) == (request(index), index * 10)
            assert take(feed.reader(worker), feed.payload_fd) is None


@pytest.mark.parametrize("due", [[0, 1, 2], [0, 1, 2, 3, 4, 5, 6]])
def test_the_shorter_of_requests_and_schedule_ends_the_load(due: list[int]) -> None:
    with opened(Feed([request(i) for i in range(5)], due, 1)) as feed:
        feed.fill()
        assert [taken.index for taken in take_all(feed)] == list(range(min(5, len(due))))
        assert take(feed.reader(0), feed.payload_fd) is None


def test_an_empty_feed_says_not_yet_and_an_ended_one_says_no_more() -> None:
    with opened(Feed(iter([request(0)]), None, 1)) as feed:
        with pytest.raises(BlockingIOError):
            take(feed.reader(0), feed.payload_fd)
        feed.fill()
        assert feed.writer is None
        assert take(feed.reader(0), feed.payload_fd) == (request(0), None)
        assert take(feed.reader(0), feed.payload_fd) is None


def test_an_endless_iterable_is_made_only_as_far_ahead_as_the_pipe_holds() -> None:
    made: list[int] = []

    def endless() -> Iterator[Request]:
        for index in count():
            made.append(index)
            yield request(index)

    with opened(Feed(endless(), None, 1)) as feed:
        feed.fill()
        assert len(made) <= TOKENS_PER_PIPE + 1
        assert feed.writer is not None
        before = len(made)
        feed.fill()
        assert len(made) == before
        assert take(feed.reader(0), feed.payload_fd) == (request(0), None)
        taken = [taken.index for taken in take_all(feed)]
        feed.fill()
        taken += [taken.index for taken in take_all(feed)]
        assert taken == list(range(1, len(made) - 1))  # one more was made and waits for room


def test_left_names_what_nobody_took_and_the_request_still_waiting_for_room() -> None:
    with opened(Feed((request(i) for i in count()), None, 1)) as feed:
        feed.fill()
        handed_out = [take(feed.reader(0), feed.payload_fd) for _ in range(3)]
        assert [taken[0].index for taken in handed_out if taken is not None] == [0, 1, 2]
        filled = max(feed.outstanding)
        left = list(feed.left())
        assert left == list(range(3, filled))
        assert sorted(set(feed.outstanding) - set(left)) == [0, 1, 2]
        assert list(feed.left()) == []


def test_end_stops_at_once_but_what_is_in_the_pipe_can_still_be_taken() -> None:
    with opened(Feed((request(i) for i in count()), None, 1)) as feed:
        feed.fill()
        feed.end()
        got = take_all(feed)
        assert [taken.index for taken in got] == list(range(len(got)))
        feed.fill()
        assert take(feed.reader(0), feed.payload_fd) is None


def test_an_exception_of_the_users_iterable_comes_through() -> None:
    def broken() -> Iterator[Request]:
        yield request(0)
        raise KeyError("theirs")

    with opened(Feed(broken(), None, 1)) as feed, pytest.raises(KeyError, match="theirs"):
        feed.fill()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("due", [None, [0, 1, 2, 3, 4, 5], list(range(10_000))], ids=["closed", "ended", "open"])
def test_close_leaves_no_descriptor_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, due: list[int] | None
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(list(Path("/proc/self/fd").iterdir()))
    feed = Feed((request(i) for i in count()), due, 4)
    counts = InFlight(4)
    feed.fill()
    assert list(tmp_path.iterdir()) == []
    feed.close()
    counts.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# The file as a ring: a step either fills or lets one worker take one request; several workers' pipes
# fall behind one another, so that what is oldest stands still while the others go round.

sizes = st.lists(st.integers(0, 700), min_size=1, max_size=8)
steps = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60)), max_size=60)


@pytest.mark.slow
@given(sizes=sizes, steps=steps, wrap=st.integers(200, 8000), closed=st.booleans())
@settings(max_examples=150)
def test_the_ring_never_overwrites_what_is_untaken(
    sizes: list[int], steps: list[tuple[int, int]], wrap: int, closed: bool
) -> None:
    requests = [request(i, sizes[i % len(sizes)]) for i in range(200)]
    due = None if closed else list(range(200))
    got: list[Request] = []
    with pytest.MonkeyPatch.context() as patch, opened(Feed(iter(requests), due, 3)) as feed:
        patch.setattr(feed_module, "_WRAP", wrap)
        for worker, many in steps:
            fill_with_room_for(feed, 20)
            got += take_all(feed, worker, many)
        while len(got) < len(requests):
            fill_with_room_for(feed, 20)
            for worker in range(3):
                got += take_all(feed, worker)
    assert sorted(got, key=by_index) == requests


def by_index(taken: Request) -> int:
    return taken.index


def test_a_worker_that_stands_still_loses_nothing_while_the_others_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of a long context: what one worker has not taken is more than half of the ring."""
    monkeypatch.setattr(feed_module, "_WRAP", 64_000)
    requests = [request(i, 500) for i in range(1000)]
    with opened(Feed(iter(requests), list(range(1000)), 2)) as feed:
        feed.fill()
        first = [take(feed.reader(worker), feed.payload_fd) for worker in (0, 1)]
        assert [taken[0] for taken in first if taken is not None] == requests[:2]
        got = take_all(feed, 1) + take_all(feed, 0)
        assert sorted(got, key=by_index) == requests[2:]


def test_a_long_run_keeps_the_file_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "_WRAP", 100_000)
    requests = (request(i, 400) for i in range(20_000))
    with opened(Feed(requests, None, 1)) as feed:
        done = 0
        while done < 20_000:
            fill_with_room_for(feed, 50)
            done += len(take_all(feed))
        assert os.fstat(feed.payload_fd).st_size < 200_000


# Counting what is in flight


def test_counts_are_shared_between_processes_and_each_has_its_own_place() -> None:
    counts = InFlight(3)
    pid = os.fork()
    if pid == 0:  # the other process: only system calls until it ends
        InFlight.of(os.dup(counts.fd))[1] = 5
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    counts[0] = 2
    assert counts.total() == 7
    counts[1] = 0
    assert counts.total() == 2
    counts.close()


def test_requests_that_come_from_elsewhere_are_waited_for_until_their_end_is_told() -> None:
    taken: list[int] = []
    incoming = Incoming(taken.append)
    with opened(Feed(incoming, incoming.due, 1)) as feed:
        feed.fill()
        assert feed.waits
        assert not select.select([incoming], [], [], 0)[0]
        incoming.put([(request(4), 70), (request(2), None)])
        assert select.select([incoming], [], [], 0)[0]
        feed.fill()
        assert not select.select([incoming], [], [], 0)[0]
        assert [take(feed.reader(0), feed.payload_fd) for _ in range(2)] == [(request(4), 70), (request(2), None)]
        for index in (4, 2):
            feed.taken(index)
        assert taken == [4, 2]
        feed.fill()
        assert feed.waits, "nothing waits to be taken, and still more may come"
        incoming.put([(request(9), 80)])
        incoming.end()
        feed.fill()
        assert not feed.waits
        assert not feed.ran_dry
        assert take(feed.reader(0), feed.payload_fd) == (request(9), 80)
        assert take(feed.reader(0), feed.payload_fd) is None
    incoming.close()


def test_waking_more_often_than_anybody_looks_blocks_nobody() -> None:
    incoming = Incoming(lambda _: None)
    for _ in range(100_000):
        incoming.wake()
    assert select.select([incoming], [], [], 0)[0]
    incoming.close()
