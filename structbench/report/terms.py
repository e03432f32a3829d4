"""How a report writes a figure: value, interval, or what n it needs. Pure.

Invariant: a figure from too few values is written as the n it needs, never as a number.
"""

from __future__ import annotations

import re

from structbench.stats import Estimate
from structbench.wording import ABSENT, latency_text, rate_text, share_text

NAMES = {
    "ttft_s": "TTFT", "ttft_due_s": "TTFT from due", "itl_s": "ITL", "tpot_s": "TPOT", "e2e_s": "e2e latency",
    "correct": "correct", "accuracy": "accuracy", "json_valid": "JSON valid", "schema_valid": "schema valid",
    "tool_calls_right": "tool calls right", "error_rate": "errors", "correct_goodput": "correct goodput",
    "requests_per_s": "requests/s", "tokens_per_s": "output tokens/s",
}  # fmt: skip
"""What each figure is called in tables and charts."""
_PER_S = ("correct_goodput", "requests_per_s", "tokens_per_s")
_UNIT = re.compile(r" ?[^\d.,]+$")
_SHARES = ("correct", "accuracy", "json_valid", "schema_valid", "tool_calls_right", "error_rate")


def value_text(name: str, value: float | None) -> str:
    """A number in the unit that its figure has."""
    if name in _SHARES:
        return share_text(value)
    return f"{rate_text(value)}/s" if name in _PER_S and value is not None else latency_text(value)


def range_text(name: str, estimate: Estimate) -> str:
    """``280–400 ms``, or nothing where there is no interval."""
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high == estimate.value:
        return ""
    low, high = value_text(name, estimate.low), value_text(name, estimate.high)
    unit = _UNIT.search(high)
    return f"{low.removesuffix(unit[0]) if unit else low}–{high}"


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
