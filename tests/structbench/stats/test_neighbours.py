"""What neighbouring values of a run have in common."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from structbench.stats import percentile_estimate, percentile_estimates
from structbench.stats.neighbours import INFLATION, Memory, Ranks, autocorrelation_time, block_correlation
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


def test_the_correlation_of_block_means_is_in_standard_errors() -> None:
    """Eight means that alternate between -1 and 1: 1 - 7 x 4 / (2 x 8), with a variance of (8 - 2) / (64 - 1)."""
    assert block_correlation(np.repeat([-1.0, 1.0] * 4, 2), 8) == pytest.approx(-0.75 / (6 / 63) ** 0.5)


def test_values_are_worth_as_few_as_their_ranks_or_what_is_up_to_their_quantile_remember() -> None:
    generator = np.random.default_rng(5)
    values = queues.autoregressive(generator, 2000, 0.8)
    assert Ranks(values).memory().time == INFLATION * autocorrelation_time(rankdata(values))
    slow = np.where(np.arange(2000) % 500 < 25, 100.0, 0.0)  # one in twenty, all of them together
    memory = Ranks(generator.random(2000) + slow).memory
    assert memory(0.95).time > 2 * memory().time
    assert memory(0.5).time == memory().time, "the median knows nothing of them"


def test_one_value_remembers_nothing() -> None:
    assert Ranks(np.ones(1)).memory(0.5) == Memory(1, dependent=False, time=1.0, blocks_alike=False)


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
