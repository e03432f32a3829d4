"""When each request of an open loop is due: pure and seeded."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from loadgen.types import NS, OpenLoop


def due_offsets(load: OpenLoop, count: int | None) -> list[int]:
    """Return when requests are due, in nanoseconds from the common start; the first is always due at once.

    At most ``count`` of them, none at or after ``load.duration_s``; give at least one of the two.
    """
    if count is None and load.duration_s is None:
        raise ValueError("an open loop needs a number of requests or a duration")
    offsets = _offsets(load)
    if load.duration_s is not None:
        end = load.duration_s * NS
        offsets = itertools.takewhile(lambda offset: offset < end, offsets)
    return list(itertools.islice(offsets, count))


def _offsets(load: OpenLoop) -> Iterator[int]:
    if load.arrival == "constant":
        # Multiplied, not accumulated: the millionth request is as exact as the second.
        yield from (round(i * NS / load.rate) for i in itertools.count())
    else:
        at = 0.0
        for gap in _gaps(load):
            yield round(at * NS)
            at += gap


def _gaps(load: OpenLoop) -> Iterator[float]:
    """Yield the seconds between arrivals, of mean 1 / rate; the squared coefficient of variation is 1 / burstiness."""
    draw = random.Random(load.seed)
    shape = load.burstiness if load.arrival == "gamma" else 1.0
    scale = 1.0 / (load.rate * shape)
    while True:
        yield draw.gammavariate(shape, scale)
