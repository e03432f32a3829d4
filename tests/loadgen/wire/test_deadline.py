"""Questions that are asked at the same time."""

from __future__ import annotations

from functools import partial
from threading import Barrier

import pytest

from loadgen.wire.deadline import together

WAIT_S = 10.0


def test_what_is_done_together_is_done_at_the_same_time_and_comes_in_order() -> None:
    all_there = Barrier(3)

    def work(name: str) -> str:
        all_there.wait(WAIT_S)
        return name

    assert together([partial(work, name) for name in "abc"]) == ["a", "b", "c"]


def test_what_fails_is_raised_without_waiting_for_the_rest() -> None:
    over = Barrier(2)

    def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        together([fail, partial(over.wait, WAIT_S)])
    over.wait(WAIT_S)


def test_nothing_to_do_is_done() -> None:
    assert together([]) == []
