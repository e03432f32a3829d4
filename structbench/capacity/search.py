"""Which loads to measure, to find the highest at which a rule is kept: doubling, then bisection. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from structbench.gates.slo import Gate, Judgement

PRECISION = 1.1
"""Loads closer than this ratio are not told apart."""
FLAT = 0.95
"""The share of the highest throughput from which on it no longer grows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one load showed."""

    level: float
    """Requests in flight, or requests/s."""
    state: Judgement
    run_id: str = ""
    requests: int = 0
    correct_per_s: float | None = None
    requests_per_s: float | None = None
    gates: Sequence[Gate] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    """What ``limits`` reads, as far as it is known."""

    @property
    def throughput(self) -> float | None:
        """Correct answers/s, or requests/s where answers are not scored."""
        return self.requests_per_s if self.correct_per_s is None else self.correct_per_s


@dataclass(frozen=True, slots=True)
class Found:
    """The steps in the order of their loads, and what they bound."""

    steps: tuple[Step, ...]
    complete: bool
    """Whether the search came to its end; else its time was up."""

    @property
    def broken(self) -> Step | None:
        """The lowest load at which the rule is not met."""
        return next((step for step in self.steps if step.state == "not met"), None)

    @property
    def holds(self) -> Step | None:
        """The highest load at which the rule is met, below any at which it is not."""
        below = [step for step in self.steps if self.broken is None or step.level < self.broken.level]
        return next((step for step in reversed(below) if step.state == "met"), None)

    @property
    def is_unanswered(self) -> bool:
        """Whether no request was completed at any load: the server answers nothing."""
        return bool(self.steps) and not any(step.facts.get("completed", step.requests) for step in self.steps)

    @property
    def left_open(self) -> tuple[Step, ...]:
        """The loads between the two at which the rule is neither met nor not met."""
        low, high = self.holds, self.broken
        return tuple(
            step
            for step in self.steps
            if step.state == "not decided"
            and (low is None or step.level > low.level)
            and (high is None or step.level < high.level)
        )

    @property
    def saturates(self) -> Step | None:
        """The lowest load with nearly the highest throughput; None if that still grows at the highest load."""
        known = [step for step in self.steps if step.throughput is not None]
        most = max((step.throughput or 0.0 for step in known), default=0.0)
        first = next((step for step in known if most and (step.throughput or 0.0) >= FLAT * most), None)
        return None if first is None or first is known[-1] else first


def search(
    measure: Callable[[float], Step], start: float, most: float, *, whole: bool, in_time: Callable[[], bool]
) -> Found:
    """Measure loads until the highest at which the rule is met is known to a tenth, or to one request in flight.

    Double from ``start`` up to ``most`` until the rule is not met, halve while it is not, and then halve the largest
    gap between the highest load at which it is met and the lowest at which it is not. ``whole``: of whole numbers.
    """
    steps: dict[float, Step] = {}

    def found(complete: bool = False) -> Found:
        return Found(tuple(steps[level] for level in sorted(steps)), complete)

    level = start
    while in_time() and level not in steps:
        steps[level] = measure(level)
        if steps[level].state != "not met":
            level = min(level * 2, most)
        elif found().holds is None and (not whole or level > 1) and level > start / 64:
            level = level // 2 if whole else level / 2
    while in_time() and (between := _between(found(), whole)) is not None:
        steps[between] = measure(between)
    return found(in_time())


def _between(found: Found, whole: bool) -> float | None:
    """Return a load inside the largest gap that is left between the bounds; None if there is none."""
    low, high = found.holds, found.broken
    if low is None or high is None:
        return None
    inside = [step.level for step in found.steps if low.level <= step.level <= high.level]
    gaps = [(b / a, a, b) for a, b in pairwise(inside) if b > a * PRECISION]
    gaps = [gap for gap in gaps if not whole or gap[2] - gap[1] > 1]
    if not gaps:
        return None
    _, a, b = max(gaps)
    return float((a + b) // 2) if whole else (a * b) ** 0.5
