"""Whether a series has one level throughout, another one from some place on or for a while, or goes up or down. Pure.

The logarithms of the values are averaged in blocks, and every stretch of blocks is held against the others; the
largest standardized difference must exceed what series without a change reach. Neighbours that are alike (a queue, a
shared batch) make such differences by themselves: likeness left between values once each stretch has its own level
shrinks the difference. A level that rises or falls steadily, over the whole series or a part of it, is told from one
that steps by which of them fits the values better. The limits were found by simulation:
``tests/structbench/notes/test_change.py`` repeats it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

FEWEST = 20
"""Values below which nothing is said."""
_FEWEST_FOR_BLOCKS = 60
"""Values below which only two levels far apart are told."""
_APART = 6.0
"""By how many of their own spreads two levels must differ where they are told from the values alone."""
_FAR, _FAR_ENOUGH = 2.0, 1.5
"""The ratio of two such levels, of FEWEST values and of three times as many."""
_STRETCH = 5
"""Values that a stretch of such a level has on average, at least."""
_STRAY = 20
"""One in so many values may be of the other level than its neighbours."""
MATERIAL = 1.15
"""The ratio of two levels from which on a change is worth a word."""
_FEWEST_TO_AND_FRO, _SURER = 200, 1.3
"""Values from which on halves are looked at where the whole has no change, and how much surer one must be then."""
_BLOCKS = 20
_SHORTEST = 3
"""The fewest blocks that may have a level of their own."""
_EDGE, _INNER = 4.6, 5.6
"""What standardized differences of two parts, and of a part in the middle from both ends, are measured by."""
_MOST_ALIKE = 0.7
_FITTED = 3
"""Fitting levels makes neighbours look less alike than they are, by this over their number."""
_RAMPS = [(start / 10, stop / 10) for start in range(8) for stop in range(start + 3, 11)]
"""Where a ramp may begin and end, as shares of the series."""


class Change(NamedTuple):
    """Values ``[start, stop)`` lie at ``ratio`` times the level of the others.

    ``gradual``: they lead from one level to ``ratio`` times that, which those after them have. ``others``: stretches
    beside this one that have its level too.
    """

    start: int
    stop: int
    ratio: float
    gradual: bool = False
    others: tuple[tuple[int, int], ...] = ()


def change_of(values: Sequence[float], *, waits: bool = True) -> Change | None:
    """Return where a positive series in order of time has another level; None if one level explains it.

    ``waits``: a queue is in the values, whose busy times look like levels of their own.

    Of a series that goes to and fro, all stretches of the other level where the two are far apart, else the first
    change found in one of its halves.
    """
    whole = _change(values) or (None if waits else _two_levels(values))
    if whole is not None or len(values) < _FEWEST_TO_AND_FRO:
        return whole
    half = len(values) // 2
    for begin in (0, half // 2, len(values) - half):
        part = _change(values[begin : begin + half], _SURER)
        if part is not None:
            return part._replace(start=begin + part.start, stop=begin + part.stop)
    return None


def _two_levels(values: Sequence[float]) -> Change | None:
    """Return the stretches of a second level, if the values are of two that are far apart and keep to each for long."""
    import numpy as np

    n = len(values)
    if n < FEWEST:
        return None
    logs = np.log(np.maximum(np.asarray(values, dtype=float), 1e-9))
    fewest = max(_STRETCH, n // 10)
    ordered = np.sort(logs)
    sums, squares = np.cumsum(ordered), np.cumsum(ordered**2)
    sizes = np.arange(fewest, n - fewest + 1)
    below, above = sums[sizes - 1], sums[-1] - sums[sizes - 1]
    spread = squares[-1] - below**2 / sizes - above**2 / (n - sizes)
    best = int(np.argmin(spread))
    size = int(sizes[best])
    low, high = float(np.median(ordered[:size])), float(np.median(ordered[size:]))
    own = float(np.sqrt(max(0.0, spread[best]) / (n - 2)))
    far = max(np.log(_FAR_ENOUGH), np.log(_FAR) - (n - FEWEST) / (2 * FEWEST) * np.log(_FAR / _FAR_ENOUGH))
    if high - low < max(far, _APART * own):
        return None
    is_high = logs > (low + high) / 2
    kept = is_high[:-2].astype(int) + is_high[1:-1] + is_high[2:] > 1
    kept = np.concatenate([[kept[1]] * 2, kept[1:-1], [kept[-2]] * 2])
    edges = [0, *(np.flatnonzero(np.diff(kept)) + 1).tolist(), n]  # single values beside their neighbours are none
    if len(edges) < 3 or n < _STRETCH * (len(edges) - 1) or (kept != is_high).sum() > n // _STRAY:
        return None
    if min(np.diff(edges)) < _SHORTEST or min(kept.sum(), n - kept.sum()) < fewest:
        return None
    # The level of the beginning is the usual one, and what came later the change.
    (start, stop), *others = [(a, b) for a, b in pairwise(edges) if kept[a] != kept[0]]
    return Change(start, stop, float(np.exp(low - high if kept[0] else high - low)), others=tuple(others))


def _change(values: Sequence[float], surer: float = 1.0) -> Change | None:
    import numpy as np

    if len(values) < _FEWEST_FOR_BLOCKS:
        return None
    logs = np.log(np.maximum(np.asarray(values, dtype=float), 1e-9))
    edges = np.linspace(0, len(values), _BLOCKS + 1).round().astype(int)
    found = [each for each in (_step(logs, edges, surer), _ramp(logs, edges, surer)) if each is not None]
    material = [each for each in found if max(each[1].ratio, 1 / each[1].ratio) >= MATERIAL]
    return min(material, key=lambda each: each[0])[1] if material else None


def _step(logs: Any, edges: Any, surer: float) -> tuple[float, Change] | None:
    """Return the stretch whose level differs most, if more than by chance, and the variance that it leaves."""
    import numpy as np

    n, means = len(logs), _block_means(logs, edges)
    starts, stops = zip(*_stretches(), strict=True)
    _, begin, end = max(zip(_standardized(means, starts, stops), starts, stops, strict=True))
    start, stop = _refined(logs, edges, begin, end)
    rest = logs - np.where(_inside(n, start, stop), logs[start:stop].mean(), _outside(logs, start, stop).mean())
    (over,) = _standardized(_block_means(rest, edges), [begin], [end],
                            logs[start:stop].mean() - _outside(logs, start, stop).mean())  # fmt: skip
    if over * _independent_share(rest) <= surer * (0.75 + 28 / n):
        return None
    if start == 0:  # what came later is the change
        start, stop = stop, n
    ratio = float(np.exp(np.median(logs[start:stop]) - np.median(_outside(logs, start, stop))))
    return float(rest.var()), Change(start, stop, ratio)


def _ramp(logs: Any, edges: Any, surer: float) -> tuple[float, Change] | None:
    """Return the ramp that fits best, if it rises or falls more than by chance, and the variance that it leaves."""
    import numpy as np

    n, means = len(logs), _block_means(logs, edges)
    places = (np.arange(n) + 0.5) / n
    shapes = [np.clip((places - start) / (stop - start), 0, 1) for start, stop in _RAMPS]
    over, rise, best = max((*_slope(means, _block_means(shape, edges)), k) for k, shape in enumerate(shapes))
    rest = logs - rise * shapes[best]
    rest -= rest.mean()
    if over * _independent_share(rest) <= surer * (3.5 + 90 / n):
        return None
    start, stop = (round(share * n) for share in _RAMPS[best])
    return float(rest.var()), Change(start, stop, float(np.exp(rise)), gradual=True)


def _slope(means: Any, shape: Any) -> tuple[float, float]:
    """Return how many standard errors a regression on the shape rises or falls, and how much."""
    import numpy as np

    shape = shape - shape.mean()
    rise = float(shape @ means) / float(shape @ shape)
    rest = means - means.mean() - rise * shape
    squares, alike = _likeness(rest)
    alike = min(max(alike, 0.0), 0.9)  # a shape that fits roughly leaves neighbours alike
    variance = squares / (len(means) - 2) * (1 + alike) / (1 - alike) / float(shape @ shape)
    return float(abs(rise) / np.sqrt(variance)), rise


def _block_means(values: Any, edges: Any) -> Any:
    import numpy as np

    return np.add.reduceat(values, edges[:-1]) / np.diff(edges)


def _stretches() -> list[tuple[int, int]]:
    """Return the stretches of blocks that may have a level of their own: the beginning, the end, or between."""
    return [
        (start, stop)
        for start in range(_BLOCKS)
        for stop in range(start + _SHORTEST, _BLOCKS + 1)
        if _BLOCKS - (stop - start) >= (_SHORTEST if start == 0 or stop == _BLOCKS else 2 * _SHORTEST)
    ]


def _inside(n: int, start: int, stop: int) -> Any:
    import numpy as np

    places = np.arange(n)
    return (places >= start) & (places < stop)


def _outside(values: Any, start: int, stop: int) -> Any:
    import numpy as np

    return np.concatenate([values[:start], values[stop:]])


def _refined(logs: Any, edges: Any, begin: int, end: int) -> tuple[int, int]:
    """Return where, within a block of its edges, the stretch begins and ends best: a block may hold both levels."""
    import numpy as np

    n, start, stop = len(logs), int(edges[begin]), int(edges[end])
    sums = np.concatenate([[0.0], np.cumsum(logs - logs.mean())])

    def explained(start: Any, stop: Any) -> Any:
        """Return how much of the squares two levels explain."""
        inside, many = sums[stop] - sums[start], stop - start
        return inside**2 / many + (sums[n] - inside) ** 2 / (n - many)

    if begin > 0:
        near = np.arange(edges[begin - 1] + 1, edges[begin + 1])
        start = int(near[np.argmax(explained(near, stop))])
    if end < len(edges) - 1:
        near = np.arange(edges[end - 1] + 1, edges[end + 1])
        stop = int(near[np.argmax(explained(start, near))])
    return start, stop


def _standardized(
    means: Any, starts: Sequence[int], stops: Sequence[int], difference: float | None = None
) -> list[float]:
    """Return how much blocks ``[start, stop)`` differ from the others, 1 where it is as much as chance makes it.

    With ``difference`` given, the blocks are what is left of it.
    """
    import numpy as np

    n, places = len(means), np.arange(len(means))
    begin, end = np.array(starts)[:, None], np.array(stops)[:, None]
    inside = (places >= begin) & (places < end)
    many = inside.sum(axis=1)
    rest, differences = np.broadcast_to(means, inside.shape), difference
    if differences is None:
        own = inside @ means / many
        others = ~inside @ means / (n - many)
        rest, differences = means - np.where(inside, own[:, None], others[:, None]), own - others
    squares = np.maximum((rest**2).sum(axis=1), 1e-9)
    alike = (rest[:, :-1] * rest[:, 1:]).sum(axis=1) / squares + _FITTED / n
    trusted = np.minimum(alike, _MOST_ALIKE)
    wider = np.maximum(1.0, (1 + trusted) / (1 - trusted))
    variance = squares / (n - 2) * wider * (1 / many + 1 / (n - many))
    limit = np.where((begin == 0) | (end == n), _EDGE, _INNER)[:, 0]
    over: list[float] = np.where(alike > _MOST_ALIKE, 0.0, np.abs(differences) / np.sqrt(variance) / limit).tolist()
    return over


def _likeness(rest: Any) -> tuple[float, float]:
    """Return the squares of what is left of block means, and how alike neighbours are in it."""
    squares = max(float(rest @ rest), 1e-9)
    return squares, float(rest[:-1] @ rest[1:]) / squares + _FITTED / len(rest)


def _independent_share(rest: Any) -> float:
    """Return the share of the values that are as good as independent, given what is left of them."""
    squares = float(rest @ rest)
    alike = max(0.0, float(rest[:-1] @ rest[1:]) / squares) if squares > 1e-9 else 0.0
    return (1 - alike) / (1 + alike)
