"""A check is limited by what it costs, whatever else the machine has to do."""

from __future__ import annotations

import signal
import time
from itertools import count

import pytest

from structbench.scoring.time_limit import OutOfTime, limited


def test_a_check_that_waits_for_its_turn_is_not_out_of_time() -> None:
    """As on a machine that has no core left for it."""

    def waits() -> str:
        time.sleep(0.3)
        return "done"

    assert limited(0.05, waits) == "done"


def test_a_check_without_end_is_ended_and_leaves_no_timer() -> None:
    before = signal.getsignal(signal.SIGPROF)
    with pytest.raises(OutOfTime):
        limited(0.05, lambda: [None for _ in count() if False])
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGPROF) is before
