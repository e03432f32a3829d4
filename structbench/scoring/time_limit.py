"""A limit on the CPU time of a check: a pattern can take longer than anyone would wait.

How busy the machine is decides nothing. After a call, the process's timer and its SIGPROF handler are as before.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
_limits_s: list[float] = []
"""The limits in force, the innermost last."""


class OutOfTime(BaseException):
    """The time limit was reached. Not an Exception, so that no library in between catches it."""


def limit_s() -> float | None:
    """Return the limit in force, or None: what is done in another process must keep it too."""
    return _limits_s[-1] if _limits_s else None


def limited(seconds: float, run: Callable[[], T]) -> T:
    """Call ``run`` and return its result; OutOfTime once it has spent that CPU time. Only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return run()
    armed = True
    _limits_s.append(seconds)

    def ring(_signal: int, _frame: FrameType | None) -> None:
        if armed:
            raise OutOfTime

    handler = signal.signal(signal.SIGPROF, ring)
    before = 0.0, 0.0
    try:
        try:
            # Repeats, in case something in between swallows it.
            before = signal.setitimer(signal.ITIMER_PROF, seconds, 0.25)
            return run()
        finally:
            armed = False
    finally:
        armed = False  # if the alarm came in the line above
        _limits_s.pop()
        signal.setitimer(signal.ITIMER_PROF, *before)
        signal.signal(signal.SIGPROF, signal.SIG_DFL if handler is None else handler)
