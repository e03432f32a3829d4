"""Runs of the very same system are seldom called different, from their stored rows to the word and the gate."""

from __future__ import annotations

import pytest

from benchmarks.comparisons import INDEPENDENT, QUEUE, RUN_EFFECT, System, compared
from tests.support.comparisons import fewer_resamples

pytestmark = pytest.mark.slow


def test_a_queue_decides_nothing_on_few_requests_and_two_single_runs_cannot_know_their_own_spread() -> None:
    with fewer_resamples():
        assert compared(QUEUE, 80, 1).decided == 0.0
        assert compared(RUN_EFFECT, 40, 1, side=3).different == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "n", "side"),
    [(QUEUE, 100, 1), (QUEUE, 400, 1), (QUEUE, 1000, 1), (INDEPENDENT, 100, 1), (RUN_EFFECT, 100, 3)],
    ids=lambda each: each.name if isinstance(each, System) else str(each),
)
def test_the_same_system_is_called_different_in_at_most_7_percent_and_fails_a_gate_in_4(
    system: System, n: int, side: int
) -> None:
    with fewer_resamples():
        found = compared(system, n, 100, side)
    assert found.different <= 0.07, found
    assert found.failed <= 0.04, found
