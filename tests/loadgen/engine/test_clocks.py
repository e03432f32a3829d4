"""Clocks that are apart and drift, made up: what is found of them, and that instants come out right."""

from __future__ import annotations

import random
import threading
from dataclasses import fields
from itertools import count
from time import monotonic_ns

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.engine.clocks import (
    PROBES,
    SAME,
    Clock,
    Echo,
    Line,
    Probe,
    Watch,
    ask,
    fitted,
    on_our_clock,
    reach,
    shortest,
)
from loadgen.types import NS, RequestRecord

US, MS = 1_000, 1_000_000
offsets = st.integers(-(10**15), 10**15)  # a fortnight
drifts = st.floats(-100e-6, 100e-6)
seeds = st.integers(0, 2**32)

DURATIONS = {
    "read_lag_max_ns", "load_ns", "prompt_eval_ns", "eval_ns", "sent_off_ns", "chunk_early_ns", "processor_wait_ns",
    "held_ns",
}  # fmt: skip
WHOLE = RequestRecord(
    index=7, due_ns=1000, sent_ns=1010, connected_ns=1012, chunk_ns=(1100, 1150, 1300), first_thinking_ns=1100,
    first_answer_ns=1150, first_tool_call_ns=1300, end_ns=1310, read_lag_max_ns=3, output_text="a", output_tokens=5,
    load_ns=20, prompt_eval_ns=50, eval_ns=200, sent_off_ns=2, chunk_early_ns=(1, 0, 4), processor_wait_ns=6,
    held_ns=8,
)  # fmt: skip


class Apart:
    """A clock that was ``offset_ns`` behind ours at 0, and goes slower than ours by ``drift``."""

    def __init__(self, offset_ns: int, drift: float, seed: int = 0, way_us: tuple[int, int] = (20, 400)) -> None:
        self.offset_ns, self.drift, self.random, self.way_us = offset_ns, drift, random.Random(seed), way_us

    def at(self, our_ns: int) -> int:
        return round((our_ns - self.offset_ns) / (1 + self.drift))

    def probe(self, our_ns: int) -> Probe:
        """A round trip whose two ways take what they take."""
        there, here, back = (self.random.randint(*self.way_us) * US for _ in range(3))
        return Probe(our_ns, self.at(our_ns + there), self.at(our_ns + there + here), our_ns + there + here + back)

    def probes(self, our_ns: int) -> list[Probe]:
        return [self.probe(our_ns + 2 * MS * number) for number in range(PROBES)]


@given(offset=offsets, there=st.integers(0, MS), here=st.integers(0, MS), back=st.integers(0, MS))
def test_the_offset_is_known_to_half_the_round_trip_however_uneven_the_two_ways(
    offset: int, there: int, here: int, back: int
) -> None:
    probe = Probe(0, there - offset, there + here - offset, there + here + back)
    assert probe.round_trip_ns == there + back
    assert abs(probe.offset_ns - offset) <= probe.bound_ns <= (there + back) / 2 + 1
    if there == back:
        assert probe.offset_ns == offset


def test_a_mean_would_be_misled_where_the_shortest_is_not() -> None:
    good, delayed = Probe(0, 110, 110, 20), Probe(0, 1100, 1100, 1010)
    assert (good.offset_ns, delayed.offset_ns) == (-100, -595)
    assert shortest([delayed, good, delayed]) is good


@given(offset=offsets, drift=drifts, seed=seeds)
@settings(max_examples=30)
def test_a_drifting_clock_is_followed_within_the_error_that_is_told(offset: int, drift: float, seed: int) -> None:
    other, clock = Apart(offset, drift, seed), Clock()
    for second in (0, 1, 3, 7, 15, 25, 35, 45, 55, 65):
        clock.measured(other.probes(second * NS))
        our_ns = second * NS + 2 * MS * PROBES
        wrong_ns = abs(clock.line.ours(other.at(our_ns)) - our_ns)
        assert wrong_ns <= clock.error_ns + 10 * US
    assert clock.line.drift == pytest.approx(drift, abs=15e-6)
    for ahead_s in (1, 5, 10):
        our_ns = (65 + ahead_s) * NS
        assert abs(clock.line.ours(other.at(our_ns)) - our_ns) < 0.4 * MS
    assert clock.round_trip_ns < 400 * US


@given(offset=offsets, drift=drifts, at=offsets, moment=offsets)
def test_there_and_back_is_the_same_instant(offset: int, drift: float, at: int, moment: int) -> None:
    line = Line(at, offset, drift)
    assert abs(line.theirs(line.ours(moment)) - moment) <= 2


def test_what_a_clock_strays_until_the_next_measurement_counts_as_error() -> None:
    clock, other = Clock(), Apart(5 * NS, 200e-6, way_us=(10, 10))
    clock.measured(other.probes(0))
    assert clock.error_ns == pytest.approx(10 * US, abs=10)
    clock.measured(other.probes(10 * NS))
    assert clock.error_ns == pytest.approx(2 * MS, rel=0.02), "200 ppm of 10 s, before the drift was known"
    assert clock.line.drift == pytest.approx(200e-6, rel=1e-3)


def test_an_error_grows_while_nothing_is_measured_and_is_a_millisecond_after_20_seconds() -> None:
    clock, other = Clock(), Apart(5 * NS, 0.0, way_us=(10, 10))
    assert clock.error_at(10**18) == 0, "never measured"
    clock.measured(other.probes(0))
    clock.measured(other.probes(10 * NS))
    at_ns = clock._seen[-1].back_ns
    assert clock.error_at(at_ns) == clock.error_ns == pytest.approx(10 * US, abs=10)
    assert clock.error_at(at_ns + 10 * NS) == pytest.approx(0.51 * MS, rel=1e-3)
    assert clock.error_at(at_ns + 20 * NS) > MS
    clock.lost_ns = at_ns + 10 * NS
    assert clock.error_at(at_ns + 3600 * NS) == pytest.approx(0.51 * MS, rel=1e-3), "nothing is sent from there"
    clock.measured(other.probes(3600 * NS))
    assert clock.error_at(0) == clock.error_ns < 20 * US, "measured again, and not gone astray"


def test_one_measurement_tells_no_drift() -> None:
    (probe,) = [Probe(0, 100, 120, 20)]
    assert fitted([probe]) == Line(at_ns=110, offset_ns=-100, drift=0.0)
    assert fitted([probe, probe]).drift == 0.0


instants = st.none() | st.integers(0, 10**12)


@given(
    line=st.builds(Line, offsets, offsets, drifts), sent=instants, due=instants, end=instants,
    chunks=st.lists(st.integers(0, 10**12)).map(sorted),
)  # fmt: skip
def test_a_record_is_moved_as_a_whole_so_that_no_duration_changes(
    line: Line, sent: int | None, due: int | None, end: int | None, chunks: list[int]
) -> None:
    record = RequestRecord(
        index=3, due_ns=due, sent_ns=sent, end_ns=end, chunk_ns=tuple(chunks), connected_ns=sent, output_text="a",
        first_answer_ns=chunks[0] if chunks else None, read_lag_max_ns=7,
    )  # fmt: skip
    ours = on_our_clock(record, line, "there")
    names = [name for name, value in vars(RequestRecord).items() if isinstance(value, property) and name != "first_ns"]
    assert {name: getattr(ours, name) for name in names} == {name: getattr(record, name) for name in names}
    first = next((ns for ns in (sent, due, end) if ns is not None), None)
    if first is not None:
        assert next(ns for ns in (ours.sent_ns, ours.due_ns, ours.end_ns) if ns is not None) == line.ours(first)
    assert (ours.node, ours.index, ours.output_text, ours.read_lag_max_ns) == ("there", 3, "a", 7)


def test_every_instant_moves_and_nothing_else() -> None:
    moved = on_our_clock(WHOLE, Line(0, 10**15, 0.0), "there")
    for name in (each.name for each in fields(RequestRecord)):
        before, after = getattr(WHOLE, name), getattr(moved, name)
        if name == "chunk_ns":
            assert after == tuple(10**15 + at_ns for at_ns in before)
        elif name.endswith("_ns") and name not in DURATIONS:
            assert after == before + 10**15, name
        else:
            assert after == (before if name != "node" else "there"), name


def test_an_echo_answers_by_its_own_clock_whoever_knows_the_token() -> None:
    hour = 3600 * NS
    echo = Echo("127.0.0.1", clock=lambda: monotonic_ns() + hour)
    watch = Watch([("127.0.0.1", echo.port, echo.token)])
    watch.begin()
    (clock,) = watch.clocks
    assert abs(clock.line.offset_ns + hour) <= clock.error_ns
    with reach("127.0.0.1", echo.port, bytes(16)) as stranger, pytest.raises(OSError):  # noqa: PT011 - reset or closed
        ask(stranger)
    watch.end()
    assert abs(clock.line.offset_ns + hour) <= clock.error_ns
    echo.close()
    with pytest.raises(OSError):  # noqa: PT011 - refused, or reset
        ask(reach("127.0.0.1", echo.port, echo.token))


def test_an_echo_that_is_gone_ends_no_watch() -> None:
    ticks = count()
    echo = Echo("127.0.0.1", clock=lambda: next(ticks))
    watch = Watch([("127.0.0.1", echo.port, echo.token)])
    watch.begin()
    line, before = watch.clocks[0].line, threading.active_count()
    echo.close()
    watch._connections[0].close()  # type: ignore[union-attr]
    watch.measure()
    watch.end()
    assert watch.clocks[0].line == line != SAME
    assert threading.active_count() <= before


def test_a_connection_that_broke_is_made_again_at_the_next_measurement() -> None:
    apart = [3600 * NS]
    echo = Echo("127.0.0.1", clock=lambda: monotonic_ns() + apart[0])
    watch = Watch([("127.0.0.1", echo.port, echo.token)])
    watch.begin()
    (clock,) = watch.clocks
    broken = watch._connections[0]
    assert broken is not None
    broken.close()
    apart[0] += 50 * MS
    watch.measure()
    assert abs(clock.line.offset_ns + 3600 * NS) <= clock.error_ns < 50 * MS, "it did not answer"
    watch.measure()
    assert clock.error_ns >= 49 * MS, "what it had gone astray meanwhile is seen"
    assert abs(clock._seen[-1].offset_ns + apart[0]) <= clock._seen[-1].bound_ns
    clock.lost_ns = monotonic_ns()
    seen = list(clock._seen)
    watch.measure()
    assert clock._seen == seen, "nobody needs it"
    watch.end()
    echo.close()
