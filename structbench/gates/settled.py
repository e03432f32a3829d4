"""When a load has seen enough: its rule is met or not met, although it was looked at again and again. Pure.

Whoever looks at a growing sample until an interval is clear of the limit is wrong more often than the interval says, so
the looks are paid for (Armitage, McPherson and Rowe, J. R. Stat. Soc. A 132, 1969; spending of the error over looks:
Lan and DeMets, Biometrika 70, 1983). The look at FIRST requests is the ordinary one, by 95 % intervals, which spends
half of 5 % in each direction; those before and after spend the rest, by intervals of 99.9 and 99 %. ``python -m
benchmarks.settled`` simulates how many decisions are wrong: at most 5 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from structbench.gates.expressions import Condition
from structbench.gates.slo import Judgement, is_exact, judgement
from structbench.stats import CONFIDENCE, Estimate, exact_rate

EARLY = (10, 20, 40)
"""Looks at which only what is far from its limit is decided."""
FIRST = 80
"""The look at which all right, no error and a p95 within its limit are decided: the latter takes 72 requests."""
GROWTH = 1.25
LAST = 2000
"""Looks after this one are as strict as the early ones, so that no number of them spends more than 5 %."""
_STRICT, _LATER = 0.999, 0.99

Estimates = Callable[[float], Mapping[str, Estimate]]
"""Confidence -> the figure of each metric, by name, with an interval of that confidence."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a look at ``requests`` requests says of a rule."""

    state: Judgement
    open: tuple[str, ...]
    """The conditions that it leaves not decided, as they were written."""
    requests: int


def looks() -> Iterator[int]:
    """Yield after how many requests a load is looked at, for ever."""
    yield from EARLY
    at = float(FIRST)
    while True:
        yield round(at)
        at *= GROWTH


def next_look(requests: int) -> int:
    """Return after how many requests the next look is, with more than ``requests``."""
    return next(at for at in looks() if at > requests)


def confidence_at(requests: int) -> float:
    """Return the confidence of the intervals that the newest look up to so many requests is by."""
    at = max(takewhile(lambda at: at <= requests, looks()), default=0)
    if at == FIRST:
        return CONFIDENCE
    return _LATER if FIRST < at <= LAST else _STRICT


def decide(rule: Sequence[Condition], requests: int, estimates: Estimates, *, closed: bool = False) -> Decision:
    """Judge a rule at a look: not met as soon as one condition is not, met once each is that applies.

    A condition is decided where the interval of this look and the ordinary one, by which reports judge, both say so.
    The chances to miss a rule of several conditions share the error.
    """
    meets_at = confidence_at(requests)
    misses_at = 1 - (1 - meets_at) / max(1, len(rule))
    by_level = {level: estimates(level) for level in (CONFIDENCE, meets_at, misses_at)}
    found: dict[str, Judgement] = {}
    for slo in rule:
        ordinary = by_level[CONFIDENCE][slo.metric.name]
        if not ordinary.n and ordinary.value is None:
            continue  # a text has no score, an answer in one piece no gaps
        state = judgement(slo, ordinary, closed=closed)
        level = meets_at if state == "met" else misses_at
        strict = _exactly(slo, by_level[level][slo.metric.name], level)
        too_early = is_exact(slo) and state == "met" and requests < FIRST
        found[slo.text] = "not decided" if too_early or judgement(slo, strict, closed=closed) != state else state
    states = set(found.values())
    whole: Judgement = "not met" if "not met" in states else "met" if states == {"met"} else "not decided"
    return Decision(whole, tuple(text for text, each in found.items() if each == "not decided"), requests)


def _exactly(slo: Condition, estimate: Estimate, confidence: float) -> Estimate:
    """Return a share with the exact interval, which near 0 and 1 errs less than Wilson's; other figures as they are."""
    if slo.metric.kind != "share" or estimate.value is None:
        return estimate
    return exact_rate(estimate.value * estimate.n, estimate.n, confidence)
