"""The highest load is found with few measurements, one failure by chance changes nothing, and time is kept."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structbench.calibration.search import Found, highest


@dataclass(frozen=True)
class Told:
    load: int
    is_good: bool


class Fake:
    """A machine that measures loads up to ``able`` well, and the given measurements badly by chance."""

    def __init__(self, able: int, unlucky: tuple[int, ...] = ()) -> None:
        self.able, self.unlucky = able, unlucky
        self.asked: list[int] = []

    def measure(self, load: int) -> Told:
        self.asked.append(load)
        return Told(load, load <= self.able and len(self.asked) not in self.unlucky)

    def find(self, start: int = 16, most: int = 1024, measurements: int = 100, steps: int = 3) -> Found[Told]:
        return highest(self.measure, start, most, in_time=lambda: len(self.asked) < measurements, steps=steps)


@given(able=st.integers(1, 5000), start=st.sampled_from((1, 16, 50)), steps=st.integers(0, 6))
def test_what_is_found_was_measured_well_and_what_failed_was_not(able: int, start: int, steps: int) -> None:
    machine = Fake(able)
    found = machine.find(start, steps=steps)
    assert found.best <= able
    assert found.best in machine.asked or found.best == 0
    assert (found.failed is None) == (found.failure is None)
    assert found.failed is not None or found.best * 2 > 1024
    if found.failed is not None:
        assert found.best < found.failed
        assert found.failure == Told(found.failed, is_good=False)
    assert len(machine.asked) <= 2 * (12 + steps)


@pytest.mark.parametrize("able", [1023, 100, 64, 16])
def test_it_closes_in_on_the_limit(able: int) -> None:
    found = Fake(able).find(most=1024)
    assert found.best <= able < (found.failed or 0)
    assert (found.failed or 0) / found.best <= 2 ** (1 / 8) * 1.2, "three halvings of a factor of two"


@pytest.mark.parametrize("able", [1, 2, 5, 15])
def test_a_machine_that_cannot_do_the_first_is_asked_for_less(able: int) -> None:
    found = Fake(able).find()
    assert 1 <= found.best <= able


def test_of_a_machine_that_can_do_nothing_nothing_is_claimed() -> None:
    machine = Fake(0)
    assert machine.find() == Found(0, 1, Told(1, is_good=False))
    assert machine.asked == [16, 16, 8, 8, 4, 4, 2, 2, 1, 1]


def test_nobody_failed_where_the_most_was_measured_well() -> None:
    assert Fake(9999).find() == Found(1024, None, None)


@given(able=st.integers(20, 1000), unlucky=st.integers(1, 8))
def test_one_failure_by_chance_changes_nothing(able: int, unlucky: int) -> None:
    assert Fake(able, (unlucky,)).find().best == Fake(able).find().best


@given(able=st.integers(0, 5000), measurements=st.integers(0, 12))
def test_once_the_time_is_up_nothing_more_is_measured(able: int, measurements: int) -> None:
    machine = Fake(able)
    found = machine.find(measurements=measurements)
    assert len(machine.asked) == min(len(machine.asked), measurements)
    assert found.best <= able
