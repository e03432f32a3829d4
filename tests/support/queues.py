"""Systems whose true figures are known, to see how often an interval covers them: queues, streams, repeated cases."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Generator = np.random.Generator


def independent(generator: Generator, n: int) -> Array:
    return np.exp(0.5 * generator.standard_normal(n))


def autoregressive(generator: Generator, n: int, memory: float = 0.5) -> Array:
    """Skewed, and each like the one before it."""
    from scipy import signal  # late: takes most of a second

    noise = generator.standard_normal(n + 200)
    noise[1:] *= np.sqrt(1 - memory**2)
    logarithms: Array = signal.lfilter([1.0], [1.0, -memory], noise)[200:]
    return np.exp(0.5 * logarithms)


def queue(generator: Generator, n: int, load: float = 0.8, servers: int = 4, warmup: int = 2000) -> tuple[Array, Array]:
    """M/D/c: when each request arrived and how long it waited, Poisson arrivals, a service of 1 s, after a warm-up."""
    arrived = np.cumsum(generator.exponential(1 / (load * servers), n + warmup))
    starts: list[float] = []
    for place, at in enumerate(arrived.tolist()):
        free = starts[place - servers] + 1.0 if place >= servers else at
        starts.append(max(at, free))
    waited = np.array(starts) - arrived
    return arrived[warmup:], waited[warmup:]


def waits(generator: Generator, n: int, load: float = 0.8) -> Array:
    """TTFT in front of such a queue: 100 ms and the wait."""
    return 0.1 + queue(generator, n, load)[1]


def closed_loop(generator: Generator, n: int, streams: int = 4) -> Array:
    """When the requests ended that did while all streams were busy, of n in a closed loop."""
    free, ends = np.zeros(streams), []
    for took in independent(generator, n):
        stream = int(np.argmin(free))
        free[stream] += took
        ends.append(float(free[stream]))
    return np.array([end for end in ends if end <= free.min()])


def stalling_streams(
    generator: Generator, n: int, streams: int = 4, tokens: int = 40, stalls_a_second: float = 1.5, stall_s: float = 0.1
) -> tuple[Array, list[Array]]:
    """When each request was sent and its chunks' offsets: gaps of 20 ms, a pace of its own, and stalls that hit all."""
    span = n / streams * tokens * 0.06
    stalls = np.cumsum(generator.exponential(1 / stalls_a_second, int(span * stalls_a_second * 2) + 50))
    lengths = generator.exponential(stall_s, len(stalls))
    free, starts, offsets = np.zeros(streams), [], []
    for _ in range(n):
        stream = int(np.argmin(free))
        start = now = float(free[stream])
        pace = 0.02 * float(np.exp(0.1 * generator.standard_normal()))
        own = [0.05]
        now += 0.05
        for gap in (pace * np.exp(0.2 * generator.standard_normal(tokens))).tolist():
            until, place = now + gap, int(np.searchsorted(stalls, now))
            while place < len(stalls) and stalls[place] < until:
                until, place = until + float(lengths[place]), place + 1
            now = until
            own.append(now - start)
        free[stream] = now
        starts.append(start)
        offsets.append(np.array(own))
    return np.array(starts), offsets
