"""Kernel stamps on the monotonic clock, and since when what a selector found may have been readable."""

from __future__ import annotations

import os
import selectors
import socket
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.types import NS
from loadgen.wire import stamps as stamps_module
from loadgen.wire.stamps import KernelClock, TimestampingSelector
from tests.support.played_wire import SCM_TIMESTAMPNS, WALL_NS, Clock

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's receive time is Linux's")
MS = 1_000_000


class Stepping(Clock):
    step_ns = 0

    def time_ns(self) -> int:
        return super().time_ns() + self.step_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Stepping:
    return stepping(monkeypatch)


def stepping(patch: pytest.MonkeyPatch) -> Stepping:
    clock = Stepping()
    patch.setattr(stamps_module, "monotonic_ns", clock.monotonic_ns)
    patch.setattr(stamps_module, "time_ns", clock.time_ns)
    return clock


def stamp(wall_ns: int) -> list[tuple[int, int, bytes]]:
    return [(socket.SOL_SOCKET, SCM_TIMESTAMPNS, struct.pack("@qq", *divmod(wall_ns, NS)))]


@linux
@given(
    asked_for=st.integers(MS, 100 * NS), lag=st.integers(0, 100 * NS), step=st.integers(-(10**12), 10**12),
    when=st.sampled_from(("before it came", "before it was read")),
)  # fmt: skip
def test_wherever_the_wall_clock_is_set_a_stamp_lies_between_the_request_and_now_and_is_near_the_truth(
    asked_for: int, lag: int, step: int, when: str
) -> None:
    lag = min(lag, asked_for)
    with pytest.MonkeyPatch.context() as patch:
        clock = stepping(patch)
        kernel, asked_ns = KernelClock(), clock.ns
        clock.ns += asked_for - lag
        came_ns = clock.ns
        if when == "before it came":
            clock.step_ns = step
        stamped = stamp(clock.time_ns())
        clock.ns += lag
        clock.step_ns = step
        received_ns, now = kernel.received_ns(stamped)
    assert now == clock.ns
    if received_ns is None:
        assert kernel.stepped
        assert abs(step) > 20_000
    else:
        assert asked_ns <= received_ns <= now
        assert abs(received_ns - came_ns) <= 40_000 + asked_for // 100


@linux
def test_a_step_spoils_only_the_read_that_sees_it(clock: Stepping) -> None:
    kernel = KernelClock()
    clock.ns += 10 * MS
    assert kernel.received_ns(stamp(clock.time_ns() - MS)) == (clock.ns - MS, clock.ns)
    stamped = stamp(clock.time_ns())
    clock.ns, clock.step_ns = clock.ns + 10 * MS, -NS
    assert (kernel.received_ns(stamped), kernel.stepped) == ((None, clock.ns), True)
    clock.ns += 10 * MS
    assert kernel.received_ns(stamp(clock.time_ns() - MS)) == (clock.ns - MS, clock.ns)
    assert not kernel.stepped
    assert (kernel.received_ns([]), kernel.stepped) == ((None, clock.ns), False)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """In place of what Linux counts of this thread."""
    path = tmp_path / "schedstat"
    path.write_text("7 0 1\n")
    monkeypatch.setattr(stamps_module, "_SCHEDSTAT", str(path))
    return path


@pytest.mark.parametrize(
    ("timeout", "took_ns", "waited_ns", "since"),
    [
        (0, 600_000, 0, "looked"),
        (None, 0, 0, "looked"),
        (None, 200_000, 0, "looked"),
        (None, 200_001, 0, "now"),
        (0.02, 9_000_000, 3_000_000, "woken"),
        (0.02, 9_000_000, 8_900_000, "looked"),
        (0.02, 9_000_000, 9_500_000, "looked"),
        (0.02, 9_000_000, None, "entered"),
    ],
)
def test_what_is_found_was_readable_since_the_last_look_or_since_it_woke_us(
    monkeypatch: pytest.MonkeyPatch, waits: Path, timeout: float | None, took_ns: int, waited_ns: int | None, since: str
) -> None:
    """A thread that was woken and had to wait for a processor woke up when it began to wait."""
    entered = 50 * MS
    before = [] if timeout == 0 else [entered]  # whether to pause
    times = iter([100, 110, *before, entered, entered + took_ns])
    monkeypatch.setattr(stamps_module, "monotonic_ns", lambda: next(times))
    if waited_ns is None:
        waits.unlink()
    ours, theirs = socket.socketpair()
    with TimestampingSelector() as selector, ours, theirs:
        selector.register(ours, 1)
        theirs.sendall(b"x")
        assert len(selector.select(0)) == 1
        if waited_ns:
            looked = iter([b"7 0 1", f"7 {waited_ns} 2".encode()])
            monkeypatch.setattr(os, "pread", lambda *_: next(looked))
        assert [key.fileobj for key, _ in selector.select(timeout)] == [ours]
        monkeypatch.undo()
        expected = {"looked": 110, "now": entered + took_ns, "woken": entered + took_ns - (waited_ns or 0),
                    "entered": entered}[since]  # fmt: skip
        assert (selector.readable_since_ns, selector.processor_wait_ns) == (expected, waited_ns)


@pytest.mark.parametrize(
    ("timeout", "reads", "since_ns", "pauses"),
    [
        (None, [], 100_000, [0.0006]),
        (0.3, [1, 1], 100_000, [0.0006]),
        (0.3, [], 700_000, []),  # it has taken as long by itself
        (0.005, [], 0, []),  # a timer is due
        (0, [], 0, []),
        (None, [2], 0, [0.0007]),
        (None, [2, 3], 0, []),  # chunks come faster than it looks
        (None, [2, 2, 1], 0, [0.0007]),
        (None, [2] * 1000 + [1] * 1960, 0, []),
        (None, [2] * 1000 + [1] * 1961, 0, [0.0007]),
    ],
)
def test_a_busy_selector_leaves_things_alone_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, timeout: float | None, reads: list[int], since_ns: int, pauses: list[float]
) -> None:
    now, paused = 50 * MS, []
    monkeypatch.setattr(stamps_module, "monotonic_ns", lambda: now)
    monkeypatch.setattr(stamps_module, "sleep", paused.append)
    ours, theirs = socket.socketpair()
    with TimestampingSelector() as selector, ours, theirs:
        selector.register(ours, 1)
        theirs.sendall(b"x")
        selector.select(1.0)
        assert paused == [], "nothing was found before"
        for chunks in reads:
            selector.note_read(chunks)
        now += since_ns
        selector.select(timeout)
        assert paused == pauses


def test_what_has_a_reader_is_read_at_once_and_the_event_loop_hears_of_the_rest() -> None:
    """Whoever waits for room to write goes on by the event loop, and so does a descriptor whose reader is gone."""
    ours, theirs = socket.socketpair()
    with TimestampingSelector() as selector, ours, theirs:
        selector.register(ours, selectors.EVENT_READ)
        selector.readers[ours.fileno()] = lambda: ours.recv(1)
        theirs.sendall(b"ab")
        assert (selector.select(1.0), selector.select(1.0), selector.select(0)) == ([], [], [])
        selector.modify(ours, selectors.EVENT_READ | selectors.EVENT_WRITE)
        assert [events for _, events in selector.select(1.0)] == [selectors.EVENT_WRITE]
        theirs.sendall(b"c")
        assert [events for _, events in selector.select(1.0)] == [selectors.EVENT_READ | selectors.EVENT_WRITE]
        selector.modify(ours, selectors.EVENT_READ)
        del selector.readers[ours.fileno()]
        assert [key.fileobj for key, _ in selector.select(1.0)] == [ours]


def test_a_reader_that_reads_knows_since_when_it_could() -> None:
    ours, theirs = socket.socketpair()
    since: list[int] = []
    with TimestampingSelector() as selector, ours, theirs:
        selector.register(ours, selectors.EVENT_READ)
        selector.readers[ours.fileno()] = lambda: since.append(selector.readable_since_ns)
        selector.select(0)
        theirs.sendall(b"x")
        selector.select(1.0)
        assert since == [selector.readable_since_ns]


@pytest.mark.usefixtures("waits")
def test_a_selector_that_does_not_wait_counts_from_its_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = iter([b"7 5 1", b"7 9 2"])
    with TimestampingSelector() as selector:
        monkeypatch.setattr(os, "pread", lambda *_: next(counted))
        found = [(selector.select(0), selector.processor_wait_ns) for _ in range(2)]
        monkeypatch.undo()
    assert found == [([], 5), ([], 4)]


def test_a_closed_selector_leaves_nothing_open(waits: Path) -> None:
    def descriptors() -> list[str]:
        return [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink() and path.exists()]

    if not Path("/proc/self/fd").exists():
        pytest.skip("nothing tells what is open")
    with TimestampingSelector():
        assert str(waits) in descriptors()
    assert str(waits) not in descriptors()


@pytest.mark.parametrize(
    ("between_ns", "tries"),
    [([0], 1), ([19_999], 1), ([20_000, 19_999], 2), ([90_000, 20_000, 0], 3), ([90_000, 90_000, 90_000], 3)],
)
def test_both_clocks_are_read_again_while_we_are_set_aside_between_them(
    monkeypatch: pytest.MonkeyPatch, between_ns: list[int], tries: int
) -> None:
    """Three times; a machine that is that busy shows in the lag."""
    ticks = iter([at for i, apart in enumerate(between_ns) for at in (i * MS, i * MS + apart)])
    walls = iter([WALL_NS + i * MS for i in range(len(between_ns))])
    monkeypatch.setattr(stamps_module, "monotonic_ns", lambda: next(ticks))
    monkeypatch.setattr(stamps_module, "time_ns", lambda: next(walls))
    assert stamps_module._clocks() == ((tries - 1) * MS, WALL_NS + (tries - 1) * MS)
