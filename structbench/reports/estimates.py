"""Formats estimates for reports: value and interval, or the n needed. Pure.

Invariant: a figure from too few values is written as the n it needs, never as a number.
"""

from __future__ import annotations

import re

from structbench.formatting import ABSENT
from structbench.metrics import Metric
from structbench.stats import Estimate

_UNIT = re.compile(r" ?(ms|s|%|/s)$")


def range_text(metric: Metric, estimate: Estimate) -> str:
    """Return ``280–400 ms``, or an empty text if there is no interval."""
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high == estimate.value:
        return ""
    low, high = metric.text(estimate.low), metric.text(estimate.high)
    unit = _UNIT.search(high)
    if unit is None or not low.endswith(unit[0]):
        return f"{low} – {high}"
    return f"{low.removesuffix(unit[0])}–{high}"


def estimate_text(metric: Metric, estimate: Estimate) -> str:
    """Return ``310 ms (280–400 ms)``, ``needs 72 requests``, or the sign for absent."""
    if estimate.value is None:
        return needs_text(estimate)
    interval = range_text(metric, estimate)
    return f"{metric.text(estimate.value)} ({interval})" if interval else metric.text(estimate.value)


def needs_text(estimate: Estimate) -> str:
    """Return ``needs 72 requests`` if something was measured but too little of it, else the sign for absent."""
    if not estimate.n or estimate.needs is None:
        return ABSENT
    return f"needs {estimate.needs} {estimate.unit}"
