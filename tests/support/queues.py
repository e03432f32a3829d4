"""Systems whose true figures are known, to see how often an interval covers them: queues, streams, repeated cases."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import signal

Array = np.ndarray[Any, Any]
Generator = np.random.Generator


def independent(generator: Generator, n: int) -> Array:
    return np.exp(0.5 * generator.standard_normal(n))


def autoregressive(generator: Generator, n: int, memory: float = 0.5) -> Array:
    """Skewed, and each like the one before it."""
    noise = generator.standard_normal(n + 200)
    noise[1:] *= np.sqrt(1 - memory**2)
    return np.exp(0.5 * signal.lfilter([1.0], [1.0, -memory], noise))[200:]


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
