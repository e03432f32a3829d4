"""The highest load at which a rule holds is found, with few loads measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import structbench
from structbench.capacity.search import Found, Step, search
from structbench.gates.slo import Judgement

sys.path.insert(0, str(Path(structbench.__file__).parents[1]))  # benchmarks/ is not installed

from benchmarks.capacity import Server, inside, plain_requests, play


def searched(capacity: float, start: float = 1, most: float = 256, whole: bool = True) -> Found:
    def measure(level: float) -> Step:
        return Step(level=level, state="met" if level <= capacity else "not met", correct_per_s=min(level, 5.0))

    return search(measure, start, most, whole=whole, in_time=lambda: True)


@settings(max_examples=40)
@given(st.integers(1, 255))
def test_a_whole_capacity_is_found_to_a_tenth_or_to_one(capacity: int) -> None:
    found = searched(capacity)
    assert found.holds is not None
    assert found.broken is not None
    assert found.holds.level <= capacity < found.broken.level
    assert found.broken.level - found.holds.level == 1 or found.broken.level <= 1.1 * found.holds.level
    assert len(found.steps) <= 15
    assert found.complete


@settings(max_examples=40)
@given(st.floats(0.1, 40))
def test_so_is_a_rate(capacity: float) -> None:
    found = searched(capacity, 1.0, 50.0, whole=False)
    assert found.holds is not None
    assert found.broken is not None
    assert found.holds.level <= capacity < found.broken.level <= 1.11 * found.holds.level


def test_a_rule_that_holds_everywhere_has_no_bound_above() -> None:
    found = searched(1000, most=20)
    assert [step.level for step in found.steps] == [1, 2, 4, 8, 16, 20]
    assert found.broken is None
    assert found.holds is not None
    assert found.holds.level == 20


def test_a_rule_that_holds_nowhere_is_measured_once() -> None:
    found = searched(0)
    assert [step.level for step in found.steps] == [1]
    assert found.holds is None


def test_what_is_not_decided_lies_between_the_bounds() -> None:
    def measure(level: float) -> Step:
        state: Judgement = "met" if level < 7 else "not met" if level > 9 else "not decided"
        return Step(level=level, state=state)

    found = search(measure, 1, 64, whole=True, in_time=lambda: True)
    assert found.holds is not None
    assert found.broken is not None
    assert (found.holds.level, found.broken.level) == (6, 10)


def test_throughput_ends_where_it_is_nearly_the_highest() -> None:
    assert (end := searched(12).saturates) is not None
    assert end.level in (5, 6, 8)
    assert searched(3).saturates is None


@pytest.mark.parametrize("calls", [0, 2])
def test_a_search_whose_time_is_up_says_what_it_knows(calls: int) -> None:
    left = iter([True] * calls + [False] * 9)
    found = search(lambda level: Step(level=level, state="met"), 1, 64, whole=True, in_time=lambda: next(left))
    assert (len(found.steps), found.complete) == (calls, False)


def test_the_slots_of_a_queue_are_found_with_fewer_requests_than_by_a_plain_bisection() -> None:
    server = Server(5, 0.12)
    found = play(server, 1)
    assert inside(found, server)
    assert sum(step.requests for step in found.steps) <= 1.5 * plain_requests(server)
