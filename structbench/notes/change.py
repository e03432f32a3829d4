"""Whether a series has one level throughout, or another one from some place on, or for a while. Pure.

The logarithms of the values are averaged in blocks, and every stretch of blocks is held against the others; the
largest standardized difference must exceed what series without a change reach. Neighbours that are alike (a queue, a
shared batch) make such differences by themselves: likeness left between values once each stretch has its own level
shrinks the difference. The limits were found by simulation: ``tests/structbench/notes/test_change.py`` repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

FEWEST = 60
"""Values below which nothing is said."""
MATERIAL = 1.15
"""The ratio of two levels from which on a change is worth a word."""
_BLOCKS = 20
_SHORTEST = 3
"""The fewest blocks that may have a level of their own."""
_EDGE, _INNER = 4.6, 5.6
"""What standardized differences of two parts, and of a part in the middle from both ends, are measured by."""
_MOST_ALIKE = 0.7


class Change(NamedTuple):
    """Values ``[start, stop)`` lie at ``ratio`` times the level of the others."""

    start: int
    stop: int
    ratio: float


def change_of(values: Sequence[float]) -> Change | None:
    """Return where a positive series in order of time has another level; None if one level explains it."""
    import numpy as np

    n = len(values)
    if n < FEWEST:
        return None
    logs = np.log(np.maximum(np.asarray(values, dtype=float), 1e-9))
    edges = np.linspace(0, n, _BLOCKS + 1).round().astype(int)
    means = np.add.reduceat(logs, edges[:-1]) / np.diff(edges)
    over, begin, end = max((_standardized(means, start, stop), start, stop) for start, stop in _stretches())
    start, stop = int(edges[begin]), int(edges[end])
    if over * _shrunk(logs, start, stop) <= 0.75 + 25 / n:
        return None
    if start == 0:  # what came later is the change
        start, stop = stop, n
    inside = np.zeros(n, dtype=bool)
    inside[start:stop] = True
    ratio = float(np.exp(np.median(logs[inside]) - np.median(logs[~inside])))
    return Change(start, stop, ratio) if max(ratio, 1 / ratio) >= MATERIAL else None


def _stretches() -> list[tuple[int, int]]:
    """Return the stretches of blocks that may have a level of their own: the beginning, the end, or between."""
    return [
        (start, stop)
        for start in range(_BLOCKS)
        for stop in range(start + _SHORTEST, _BLOCKS + 1)
        if _BLOCKS - (stop - start) >= (_SHORTEST if start == 0 or stop == _BLOCKS else 2 * _SHORTEST)
    ]


def _standardized(means: Any, start: int, stop: int) -> float:
    """Return the difference of blocks ``[start, stop)`` from the others, 1 where it is as large as chance makes it."""
    import numpy as np

    inside = np.zeros(len(means), dtype=bool)
    inside[start:stop] = True
    difference = means[inside].mean() - means[~inside].mean()
    rest = means - np.where(inside, means[inside].mean(), means[~inside].mean())
    squares = max(float(rest @ rest), 1e-9)
    # Fitting two levels makes neighbours look less alike than they are.
    alike = float(rest[:-1] @ rest[1:]) / squares + 3 / len(means)
    if alike > _MOST_ALIKE:
        return 0.0
    wider = max(1.0, (1 + alike) / (1 - alike))
    variance = squares / (len(means) - 2) * wider * (1 / inside.sum() + 1 / (~inside).sum())
    limit = _EDGE if start == 0 or stop == len(means) else _INNER
    return float(abs(difference) / np.sqrt(variance)) / limit


def _shrunk(logs: Any, start: int, stop: int) -> float:
    """Return the share of the values that are as good as independent, once ``[start, stop)`` has its own level."""
    import numpy as np

    rest = logs.copy()
    rest[start:stop] -= logs[start:stop].mean()
    outside = np.concatenate([logs[:start], logs[stop:]]).mean()
    rest[:start] -= outside
    rest[stop:] -= outside
    squares = float(rest @ rest)
    alike = max(0.0, float(rest[:-1] @ rest[1:]) / squares) if squares > 1e-9 else 0.0
    return (1 - alike) / (1 + alike)
