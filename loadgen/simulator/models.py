"""A model while the server runs: is it loaded, who has a slot, who waits for one.

Invariant: never more than ``profile.parallel`` slots are taken; those who wait are served in order of arrival.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable
from typing import Any

from loadgen.simulator.profiles import Profile, digest_of

KEEP_ALIVE_S = 300.0
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


class Model:
    """One model of the server; instants are the event loop's seconds."""

    def __init__(self, name: str, profile: Profile) -> None:
        self.name = name
        self.profile = profile
        self.digest = digest_of(name, profile)
        self.context = min(profile.context_length, 4096)
        self.taken = 0
        self.waiting: deque[Callable[[], None]] = deque()
        self.users = 0
        """Requests admitted and not yet ended."""
        self._ready_at: float | None = None
        self._expires_at = math.inf

    def full(self) -> bool:
        """One more request would be one too many in the queue."""
        return self.users >= self.profile.parallel + self.profile.max_queue

    def loaded(self, now: float) -> bool:
        """It is in memory, or on its way there."""
        if self._ready_at is not None and not self.users and now >= self._expires_at:
            self._ready_at = None
        return self._ready_at is not None

    def load(self, now: float) -> float:
        """Seconds until the model is loaded; starts to load it where it is not."""
        if not self.loaded(now):
            self._ready_at = now + self.profile.load_s
            self._expires_at = self._ready_at + KEEP_ALIVE_S
        assert self._ready_at is not None
        return max(0.0, self._ready_at - now)

    def expires_in(self, now: float) -> float:
        """Seconds until it is unloaded, at most a hundred years."""
        return min(self._expires_at - now, 100 * 365.25 * 86400)

    def keep(self, seconds: float, now: float) -> None:
        """Stay loaded for so long from now on, or until the requests in flight are done."""
        self._expires_at = now + seconds

    def take(self, start: Callable[[], None]) -> None:
        """Call ``start`` once a slot is free, which may be at once."""
        if self.taken < self.profile.parallel:
            self.taken += 1
            start()
        else:
            self.waiting.append(start)

    def release(self) -> None:
        """Give a slot back: to the next in the queue, if there is one."""
        if self.waiting:
            self.waiting.popleft()()
        else:
            self.taken -= 1


def seconds_of(keep_alive: Any) -> float | None:
    """Ollama's ``keep_alive`` in seconds, below zero for ever; None where it is no duration."""
    if keep_alive is None:
        return KEEP_ALIVE_S
    if isinstance(keep_alive, (int, float)):
        return math.inf if keep_alive < 0 else float(keep_alive)
    text = str(keep_alive)
    if text.lstrip("-") in ("0", ""):
        return 0.0 if text else None
    found = _DURATION.findall(text)
    if "".join(number + unit for number, unit in found) != text.lstrip("-"):
        return None
    return math.inf if text.startswith("-") else sum(float(number) * _UNITS[unit] for number, unit in found)
