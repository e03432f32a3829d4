"""The state of a model: whether it is loaded, which requests have a slot, which wait for one.

Invariant: never more than ``profile.parallel`` slots are taken; waiting requests are served in order of arrival.
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
        """Return whether the queue has no room for another request."""
        return self.users >= self.profile.parallel + self.profile.max_queue

    def loaded(self, now: float) -> bool:
        """Return whether the model is loaded or being loaded."""
        if self._ready_at is not None and not self.users and now >= self._expires_at:
            self._ready_at = None
        return self._ready_at is not None

    def load(self, now: float) -> float:
        """Load the model if it is not loaded, and return the seconds until it is."""
        if not self.loaded(now):
            self._ready_at = now + self.profile.load_s
            self._expires_at = self._ready_at + KEEP_ALIVE_S
        assert self._ready_at is not None
        return max(0.0, self._ready_at - now)

    def expires_in(self, now: float) -> float:
        """Return the seconds until the model is unloaded, at most a hundred years."""
        return min(self._expires_at - now, 100 * 365.25 * 86400)

    def keep(self, seconds: float, now: float) -> None:
        """Keep the model loaded for this long, or until the requests in flight are done."""
        self._expires_at = now + seconds

    def take(self, start: Callable[[], None]) -> None:
        """Call ``start`` as soon as a slot is free, perhaps at once."""
        if self.taken < self.profile.parallel:
            self.taken += 1
            start()
        else:
            self.waiting.append(start)

    def release(self) -> None:
        """Free a slot: pass it to the next in the queue, if there is one."""
        if self.waiting:
            self.waiting.popleft()()
        else:
            self.taken -= 1


def seconds_of(keep_alive: Any) -> float | None:
    """Return Ollama's ``keep_alive`` in seconds (infinity if negative), or None if it is not a duration."""
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
