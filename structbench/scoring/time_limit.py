"""A time limit for checks: a pattern can take longer than anyone would wait.

Invariant: after a call the process's timer and its SIGALRM handler are as they were.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class OutOfTime(BaseException):
    """The time limit was reached. Not an Exception, so that no library in between catches it."""


def limited(limit_s: float, run: Callable[[], T]) -> T:
    """Call ``run`` and return its result; OutOfTime after the limit. Other threads than the main one have none."""
    if threading.current_thread() is not threading.main_thread():
        return run()
    armed = True

    def ring(_signal: int, _frame: FrameType | None) -> None:
        if armed:
            raise OutOfTime

    handler = signal.signal(signal.SIGALRM, ring)
    before = 0.0, 0.0
    try:
        try:
            # Repeats, in case something in between swallows it.
            before = signal.setitimer(signal.ITIMER_REAL, limit_s, 0.25)
            return run()
        finally:
            armed = False
    finally:
        armed = False  # if the alarm came in the line above
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
