"""Series with one level and series with two: what is told of each, and how often of series that have only one."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from structbench.notes.change import FEWEST, change_of

Series = Callable[[np.random.Generator, int], Any]


def independent(rng: np.random.Generator, n: int, spread: float = 0.3) -> Any:
    return np.exp(spread * rng.standard_normal(n))


def autoregressive(rng: np.random.Generator, n: int, likeness: float = 0.5) -> Any:
    values = np.zeros(n + 50)
    for place, noise in enumerate(rng.standard_normal(n + 49) * np.sqrt(1 - likeness**2), start=1):
        values[place] = likeness * values[place - 1] + noise
    return np.exp(0.3 * values[50:])


def queue(rng: np.random.Generator, n: int, load: float = 0.8, slots: int = 4) -> Any:
    """TTFT in an M/D/4 queue with a service of 1 s and 0.1 s of prompt evaluation, once it is full."""
    free, waits = [0.0] * slots, []
    for due in np.cumsum(rng.exponential(1 / (slots * load), n + 200)):
        begun = max(due, heapq.heappop(free))
        heapq.heappush(free, begun + 1)
        waits.append(begun - due)
    return np.array(waits[200:]) + 0.1


def whole_answers(rng: np.random.Generator, n: int) -> Any:
    return queue(rng, n) + 1


def slower(values: Any, start: float, stop: float = 1.0, factor: float = 1.3) -> Any:
    values = values.copy()
    values[round(start * len(values)) : round(stop * len(values))] *= factor
    return values


STATIONARY: dict[str, Series] = {
    "independent": independent, "AR(.5)": autoregressive, "M/D/4": queue, "M/D/4, whole answers": whole_answers,
}  # fmt: skip


def false_notes(series: Series, n: int, times: int) -> int:
    rng = np.random.default_rng(7)
    return sum(change_of(series(rng, n)) is not None for _ in range(times))


@pytest.mark.parametrize("name", STATIONARY)
def test_series_of_one_level_are_hardly_ever_told_to_have_two(name: str) -> None:
    assert false_notes(STATIONARY[name], 100, 4) == 0


@pytest.mark.slow
@pytest.mark.parametrize("n", [60, 100, 200, 400, 1000])
@pytest.mark.parametrize("name", STATIONARY)
def test_at_most_one_in_twenty_series_of_one_level_is_told_to_have_two(name: str, n: int) -> None:
    assert false_notes(STATIONARY[name], n, 300) <= 15


@pytest.mark.parametrize("n", [60, 90, 200])
def test_a_server_slower_by_a_third_from_half_way_on_is_told_with_when_and_how_much(n: int) -> None:
    rng = np.random.default_rng(3)
    for _ in range(2):
        found = change_of(slower(independent(rng, n, 0.07), 0.5))
        assert found is not None
        assert found.stop == n
        assert abs(found.start - n / 2) <= n / 20
        assert found.ratio == pytest.approx(1.3, rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "spread", "least"), [(60, 0.1, 90), (100, 0.1, 98), (200, 0.2, 98), (400, 0.3, 95)])
def test_a_slow_down_half_way_is_nearly_always_told(n: int, spread: float, least: int) -> None:
    rng = np.random.default_rng(5)
    assert sum(change_of(slower(independent(rng, n, spread), 0.5)) is not None for _ in range(100)) >= least


FORMS: dict[str, Callable[[Any], Any]] = {
    "all along": lambda x: 1 + 0.6 * x, "from half way on": lambda x: 1 + 1.2 * np.maximum(0, x - 0.5),
    "until half way": lambda x: 1 + 0.6 * np.minimum(1, 2 * x), "to a limit": lambda x: 1.6 - 0.6 * np.exp(-x / 0.2),
    "threefold": lambda x: 1 + 2 * x, "in steps": lambda x: 1 + 0.2 * np.floor(4 * x),
    "faster and faster": lambda x: 1 + 0.8 * x**2, "shorter": lambda x: 1 - 0.4 * x,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [80, 1000])
def test_a_server_that_heats_up_little_by_little_is_told(form: str, n: int) -> None:
    change = FORMS[form](np.arange(n) / n)
    found = change_of(0.1 * change * independent(np.random.default_rng(4), n, 0.07))
    assert found is not None
    assert found.gradual
    assert found.ratio == pytest.approx(change[-1] / change[0], rel=0.2)
    assert form != "from half way on" or abs(found.start - n / 2) <= 0.15 * n


def test_a_neighbour_that_comes_and_goes_is_told() -> None:
    found = change_of(slower(independent(np.random.default_rng(1), 200, 0.1), 0.4, 0.65, 1.5))
    assert found is not None
    assert (found.start, found.stop) == (80, 130)
    assert found.ratio == pytest.approx(1.5, rel=0.05)


@pytest.mark.parametrize("stretches", [4, 5, 6])
def test_a_server_that_goes_to_and_fro_is_told_with_one_of_its_changes(stretches: int) -> None:
    values = independent(np.random.default_rng(1), 600, 0.1)
    for number in range(1, stretches, 2):
        values = slower(values, number / stretches, (number + 1) / stretches, 1.5)
    found = change_of(values)
    assert found is not None
    assert min(abs(found.start - 600 * number / stretches) for number in range(1, stretches)) <= 3
    assert max(found.ratio, 1 / found.ratio) == pytest.approx(1.5, rel=0.06)


def test_a_slow_beginning_is_told_as_the_faster_rest() -> None:
    found = change_of(slower(independent(np.random.default_rng(1), 200, 0.1), 0.0, 0.3, 1.5))
    assert found is not None
    assert (found.start, found.stop) == (60, 200)
    assert found.ratio == pytest.approx(1 / 1.5, rel=0.05)


def test_a_change_too_small_to_matter_is_none_however_certain() -> None:
    assert change_of([1.0] * 100 + [1.1] * 100) is None
    assert change_of([1.0] * 100 + [1.2] * 100) == (100, 200, pytest.approx(1.2), False, ())


def test_nothing_is_said_of_a_constant_series_and_of_a_short_one() -> None:
    assert change_of([2.0] * 500) is None
    assert change_of([1.0] * (FEWEST // 2) + [9.0] * (FEWEST // 2 - 1), waits=False) is None
    assert change_of([1.0] * 29 + [9.0] * 29) is None, "so may a queue"


@pytest.mark.parametrize(("n", "factor"), [(20, 3.0), (40, 3.0), (40, 2.0), (59, 1.8), (59, 1 / 3)])
def test_the_larger_a_change_of_pace_the_fewer_values_tell_it(n: int, factor: float) -> None:
    """A threefold slow-down half way was not told below 60 requests."""
    found = change_of(slower(independent(np.random.default_rng(3), n, 0.06), 0.5, factor=factor), waits=False)
    assert found == (n // 2 if n != 59 else 30, n, pytest.approx(factor, rel=0.08), False, ())


def test_a_pace_that_goes_to_and_fro_is_told_with_each_of_its_stretches() -> None:
    values = independent(np.random.default_rng(3), 120, 0.08)
    for number in range(1, 8, 2):
        values = slower(values, number / 8, (number + 1) / 8, 2.6)
    found = change_of(values, waits=False)
    assert found == (15, 30, pytest.approx(2.6, rel=0.05), False, ((45, 60), (75, 90), (105, 120)))


def two_kinds(rng: np.random.Generator, n: int) -> Any:
    """Answers of a server with a cache: some four times as fast, whenever they come."""
    return np.where(rng.random(n) < 0.3, 1.0, 4.0) * independent(rng, n, 0.05)


def hiccups(rng: np.random.Generator, n: int) -> Any:
    return independent(rng, n, 0.1) + (rng.random(n) < 0.1) * rng.exponential(3, n)


@pytest.mark.parametrize("n", [20, 40, 59])
def test_a_pace_of_one_level_is_not_told_to_have_two_however_short(n: int) -> None:
    rng = np.random.default_rng(8)
    series = (independent, autoregressive, two_kinds, hiccups)
    assert sum(change_of(each(rng, n), waits=False) is not None for each in series for _ in range(20)) == 0
