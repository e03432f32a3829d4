"""What neighbouring values of a run have in common."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from structbench.stats import percentile_estimate, percentile_estimates
from structbench.stats.neighbours import Ranks, autocorrelation_time, block_correlation
from tests.support import queues


def test_the_memory_of_an_autoregression_is_known() -> None:
    """(1 + r) / (1 - r), here for the series itself; what has none has a time of about 1."""
    generator = np.random.default_rng(1)
    for memory in (0.3, 0.5, 0.8):
        values = np.log(queues.autoregressive(generator, 40_000, memory))
        assert autocorrelation_time(values) == pytest.approx((1 + memory) / (1 - memory), rel=0.1)
    found = Ranks(queues.independent(generator, 1000)).memory()
    assert (found.dependent, found.time, found.blocks_alike, found.effective_n) == (False, 1.0, False, 1000)
    assert autocorrelation_time(np.ones(50)) == 1.0
    assert Ranks(np.ones(50)).memory(0.5).dependent is False


def test_a_slow_half_makes_blocks_alike() -> None:
    values = np.random.default_rng(2).random(200)
    assert Ranks(values).memory().blocks_alike is False
    assert Ranks(values + np.repeat((0, 1), 100)).memory().blocks_alike is True
    assert block_correlation(values[:15], 8) == 0.0
    assert block_correlation(np.ones(80), 8) == 0.0


@given(st.lists(st.integers(0, 9), min_size=20, max_size=200))
def test_ranks_are_those_of_scipy_and_know_no_unit(values: list[int]) -> None:
    """What values remember is the same for any that are in the same order, ties included."""
    plain = np.array(values, dtype=float)
    for p in (None, 0.5, 0.9):
        assert Ranks(plain).memory(p) == Ranks(np.exp(plain)).memory(p)
        assert Ranks(plain).memory(p) == Ranks(rankdata(plain)).memory(p)
    assert Ranks(plain).ordered.tolist() == sorted(values)


def test_several_percentiles_are_each_what_it_is_alone() -> None:
    waits = queues.waits(np.random.default_rng(3), 400)
    ps = [0.5, 0.9, 0.95, 0.99]
    for values in (waits, waits[:5], waits[:0]):
        assert percentile_estimates(values, ps) == [percentile_estimate(values, p) for p in ps]
