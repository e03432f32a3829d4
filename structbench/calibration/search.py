"""The highest of rising loads that is still measured well, with few measurements. Pure: it is given what measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Generic, Protocol, TypeVar


class Measured(Protocol):
    """What one measurement found."""

    @property
    def is_good(self) -> bool: ...


_M = TypeVar("_M", bound=Measured)


@dataclass(frozen=True, slots=True)
class Found(Generic[_M]):
    """The highest load that was measured well (0: none was), the lowest above it that was not, and what that showed."""

    best: int
    failed: int | None
    failure: _M | None


def highest(
    measure: Callable[[int], _M], start: int, most: int, *, in_time: Callable[[], bool], steps: int = 3
) -> Found[_M]:
    """Double from ``start`` up to ``most`` while it is measured well, halve while it is not, and close in.

    A failure counts if it happens twice: another process may have been in the way. Where there is no time left, what
    was found so far is returned.
    """
    best, failed, failure = 0, None, None

    def attempt(load: int) -> bool:
        nonlocal best, failed, failure
        found = measure(load)
        if not found.is_good and in_time():
            found = measure(load)
        if found.is_good:
            best = load
        else:
            failed, failure = load, found
        return found.is_good

    load = start
    while in_time() and load <= most and attempt(load):
        load *= 2
    load = start // 2
    while failed is not None and not best and load and in_time() and not attempt(load):
        load //= 2
    for _ in range(steps):
        if failed is None or not best or not in_time():
            break
        load = round(sqrt(best * failed))
        if load in (best, failed):
            break
        attempt(load)
    return Found(best, failed, failure)
