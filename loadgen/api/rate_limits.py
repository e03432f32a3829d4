"""A server that has been asked too often: how it says so, and for how long. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

TOO_MANY = 429
_NAMES = frozenset({"429", "rate_limit_error", "rate_limit_exceeded", "too_many_requests"})
_MOST_S = 365 * 86400.0


def is_rate_limit(fields: Any) -> bool:
    """Return whether an error within an answer is a rate limit, by its code or type, not by its words."""
    if not isinstance(fields, Mapping):
        return False
    error = fields.get("error") or fields
    if not isinstance(error, Mapping):
        return False
    named = (error.get(name) for name in ("code", "type", "status"))
    return any(str(name).lower() in _NAMES for name in named)


def seconds_of(retry_after: str, now_s: float) -> float | None:
    """Return how long a Retry-After asks to wait, in seconds from ``now_s`` (``time.time``); None if it does not.

    It gives seconds, in some servers' headers with a fraction, or a date; what was before now is 0.
    """
    text = retry_after.strip()
    try:
        wait_s = float(text)
    except ValueError:
        try:
            when = parsedate_to_datetime(text)
        except ValueError:
            return None
        wait_s = round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now_s)
        wait_s = max(0.0, wait_s)
    return wait_s if 0 <= wait_s < _MOST_S else None
