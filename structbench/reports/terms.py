"""How a report writes a figure: value, interval, or what n it needs. Pure.

Invariant: a figure from too few values is written as the n it needs, never as a number.
"""

from __future__ import annotations

import math
import re

from structbench.formatting import ABSENT, share_text
from structbench.stats import Estimate

NAMES = {
    "ttft_s": "TTFT", "ttft_due_s": "TTFT from due", "itl_s": "ITL", "tpot_s": "TPOT", "e2e_s": "e2e",
    "correct": "correct", "accuracy": "accuracy", "json_valid": "JSON valid", "schema_valid": "schema valid",
    "tool_calls_right": "tool calls right", "error_rate": "errors", "correct_goodput": "correct goodput",
    "goodput": "goodput",    "requests_per_s": "requests/s", "tokens_per_s": "output tokens/s",
}  # fmt: skip
"""What each figure is called in tables and charts."""
_PER_S = ("correct_goodput", "goodput", "requests_per_s", "tokens_per_s")
_UNIT = re.compile(r" ?(ms|s|%|/s)$")
SHARES = ("correct", "accuracy", "json_valid", "schema_valid", "tool_calls_right", "error_rate")


def value_text(name: str, value: float | None, more: int = 0) -> str:
    """A number in the unit that its figure has, with so many more digits than usual."""
    if name in SHARES:
        return share_text(value, 1 + more)
    if name in _PER_S:
        return ABSENT if value is None else f"{_significant(value, 3 + more)}/s"
    return _seconds_text(value, 3 + more)


def _seconds_text(seconds: float | None, digits: int) -> str:
    """``8.41 ms``, ``310 ms``, ``1.24 s``."""
    if seconds is None:
        return ABSENT
    milliseconds = abs(seconds) < 0.9995
    return f"{_significant(seconds * 1e3 if milliseconds else seconds, digits)} {'ms' if milliseconds else 's'}"


def _significant(value: float, digits: int) -> str:
    """Usually three, since two hide an interval's width."""
    if not value:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits}g}")))))
    return f"{value:,.{decimals}f}"


def range_text(name: str, estimate: Estimate) -> str:
    """``280–400 ms``, or nothing where there is no interval."""
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high == estimate.value:
        return ""
    low, high = value_text(name, estimate.low), value_text(name, estimate.high)
    unit = _UNIT.search(high)
    if unit is None or not low.endswith(unit[0]):
        return f"{low} – {high}"
    return f"{low.removesuffix(unit[0])}–{high}"


def estimate_text(name: str, estimate: Estimate) -> str:
    """``310 ms (280–400 ms)``, ``needs 72 requests``, or the sign for absent."""
    if estimate.value is None:
        return needs_text(estimate)
    interval = range_text(name, estimate)
    return f"{value_text(name, estimate.value)} ({interval})" if interval else value_text(name, estimate.value)


def needs_text(estimate: Estimate) -> str:
    """``needs 72 requests`` where something was measured, but too little of it."""
    if not estimate.n or estimate.needs is None:
        return ABSENT
    return f"needs {estimate.needs} {estimate.unit}"
