"""When requests are due: exact, seeded, ascending."""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.arrivals import due_offsets
from loadgen.types import NS, Arrival, OpenLoop

rates = st.floats(0.1, 5000)
loads = st.builds(
    OpenLoop,
    rate=rates,
    arrival=st.sampled_from(["constant", "poisson", "gamma"]),
    burstiness=st.floats(0.1, 10),
    seed=st.integers(0, 2**32),
)


def gaps_s(load: OpenLoop, count: int) -> list[float]:
    return [(b - a) / NS for a, b in pairwise(due_offsets(load, count + 1))]


def test_constant_does_not_drift_by_the_millionth_request() -> None:
    offsets = due_offsets(OpenLoop(rate=300.0), 1_000_000)
    assert offsets[999_999] == round(999_999 * NS / 300)
    assert {b - a for a, b in pairwise(offsets)} == {3_333_333, 3_333_334}


@pytest.mark.parametrize(("rate", "gap_ns"), [(1.0, NS), (2.5, 400_000_000), (200.0, 5_000_000), (1000.0, 1_000_000)])
def test_constant_gaps_are_all_the_same(rate: float, gap_ns: int) -> None:
    assert due_offsets(OpenLoop(rate=rate), 50) == [i * gap_ns for i in range(50)]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("arrival", "burstiness", "squared_cv"),
    [("poisson", 1.0, 1.0), ("poisson", 9.0, 1.0), ("gamma", 1.0, 1.0), ("gamma", 0.25, 4.0), ("gamma", 4.0, 0.25)],
)
def test_mean_and_spread_of_the_gaps(arrival: Arrival, burstiness: float, squared_cv: float, seed: int) -> None:
    gaps = gaps_s(OpenLoop(rate=50.0, arrival=arrival, burstiness=burstiness, seed=seed), 20_000)
    mean = fmean(gaps)
    assert mean == pytest.approx(1 / 50, rel=0.06)
    assert pvariance(gaps) / mean**2 == pytest.approx(squared_cv, rel=0.12)


def test_burstiness_one_is_poisson() -> None:
    assert due_offsets(OpenLoop(rate=9.0, arrival="gamma", seed=3), 99) == due_offsets(
        OpenLoop(rate=9.0, arrival="poisson", seed=3), 99
    )


def test_another_seed_is_another_schedule() -> None:
    first, second = (due_offsets(OpenLoop(rate=9.0, arrival="poisson", seed=seed), 20) for seed in (1, 2))
    assert first[0] == second[0] == 0
    assert first[1:] != second[1:]


@given(load=loads, count=st.integers(0, 300))
def test_ascending_from_zero_and_the_same_again(load: OpenLoop, count: int) -> None:
    offsets = due_offsets(load, count)
    assert len(offsets) == count
    assert offsets[:1] == [0][:count]
    assert all(a <= b for a, b in pairwise(offsets))
    assert offsets == due_offsets(load, count)
    assert offsets[: count // 2] == due_offsets(load, count // 2)


@given(load=loads, duration_s=st.floats(0.001, 0.5))
def test_duration_cuts_the_same_schedule_and_nothing_is_due_at_its_end(load: OpenLoop, duration_s: float) -> None:
    whole = due_offsets(load, 5000)
    cut = due_offsets(OpenLoop(rate=load.rate, arrival=load.arrival, burstiness=load.burstiness, seed=load.seed,
                               duration_s=duration_s), 5000)  # fmt: skip
    assert cut == [offset for offset in whole if offset < duration_s * NS]


def test_whichever_of_count_and_duration_comes_first() -> None:
    assert len(due_offsets(OpenLoop(rate=10.0, duration_s=1.0), None)) == 10
    assert len(due_offsets(OpenLoop(rate=10.0, duration_s=1.0), 4)) == 4
    assert len(due_offsets(OpenLoop(rate=10.0, duration_s=1.0), 400)) == 10


def test_neither_count_nor_duration_is_refused_instead_of_never_ending() -> None:
    with pytest.raises(ValueError, match="number of requests or a duration"):
        due_offsets(OpenLoop(rate=1.0), None)
