"""Intervals cover the true figures of simulated systems as often as they say, wherever they are shown."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.intervals import case_coverage, coverage, gap_coverage, rate_coverage
from structbench.stats import TOO_ALIKE, percentile_estimate
from tests.support import queues


def test_a_queue_hides_the_tail_of_a_short_run_and_independent_requests_do_not() -> None:
    generator = np.random.default_rng(7)
    plain = [percentile_estimate(queues.independent(generator, 400), 0.95) for _ in range(20)]
    queued = [percentile_estimate(queues.waits(generator, 400), 0.95) for _ in range(20)]
    assert sum(each.has_interval for each in plain) >= 18
    assert [each.has_interval for each in queued] == [False] * 20
    assert {each.why for each in queued} == {TOO_ALIKE}
    assert all(each.value is not None and (each.needs is None or each.needs > 400) for each in queued)


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 400, 1000, 4000])
def test_percentiles_of_a_queue_at_80_percent_are_covered_wherever_an_interval_is_shown(n: int) -> None:
    found = coverage(queues.waits, n, 150)
    assert all(shown < 0.05 or covers >= 0.90 for shown, covers in found.values()), found
    assert n >= 4000 or found[0.95][0] <= 0.05, "p95 is mostly hidden below some 4,000 requests"
    assert n < 4000 or found[0.5][0] >= 0.8, "and a long run has a median"


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 400, 1000])
def test_percentiles_of_independent_requests_are_covered_as_often_as_promised(n: int) -> None:
    found = coverage(queues.independent, n, 2000)
    for shown, covers in found.values():
        assert 0.94 <= covers <= 0.985, found
        assert shown >= 0.95, found


@pytest.mark.slow
def test_rates_and_gaps_and_such_cases_are_covered() -> None:
    for poisson in (False, True):
        assert 0.92 <= rate_coverage(800, poisson) <= 0.98
    assert 0.92 <= case_coverage(800) <= 0.98
    assert all(covers >= 0.85 for _, covers in gap_coverage(300, 60).values())
