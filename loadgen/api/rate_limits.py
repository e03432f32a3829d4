"""A server that has been asked too often: how it says so, and for how long. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

TOO_MANY = 429
_NAMES = re.compile(r"429(\.0)?|.*rate_?limit.*|too_?many_?requests.*|throttl.*|resource_?exhausted", re.IGNORECASE)
_FIELDS = ("code", "type", "status", "status_code", "error_code")
_MOST_S = 365 * 86400.0


def is_rate_limit(fields: Any) -> bool:
    """Return whether an error within an answer is a rate limit, by its code or type, not by its words."""
    if not isinstance(fields, Mapping):
        return False
    error = fields.get("error")
    told = [each.get(name) for each in (error, fields) if isinstance(each, Mapping) for name in _FIELDS]
    return any(_NAMES.fullmatch(str(name)) for name in told if name is not None)


def seconds_of(retry_after: str, now_s: float) -> float | None:
    """Return how long a Retry-After asks to wait, in seconds from ``now_s`` (``time.time``); None if it does not.

    It gives seconds, in some servers' headers with a fraction or in "ms", or a date; what was before now is 0.
    """
    text = retry_after.strip()
    number, unit_s = (text[:-2], 0.001) if text.endswith("ms") else (text, 1.0)
    try:
        wait_s = float(number) * unit_s
    except ValueError:
        try:
            when = parsedate_to_datetime(text)
        except ValueError:
            return None
        wait_s = round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now_s)
        wait_s = max(0.0, wait_s)
    return wait_s if 0 <= wait_s < _MOST_S else None
