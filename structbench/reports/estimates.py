"""Estimates as reports show them: value and interval, or the n needed; as texts and as cells of the page's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from structbench.formatting import ABSENT
from structbench.metrics import Metric
from structbench.results.figures import Figures
from structbench.results.groups import RunGroup
from structbench.stats import Estimate

SUCH_CASES = "correct, such cases"
ABOUT_CASES = (
    "correct is of these cases: how often they are answered rightly if asked again. Such cases are others like them; "
    "answers to one case are alike, so that takes 20 cases or more."
)
TableCell = Mapping[str, str]
"""The keys value, range and needs: either the first two or only the last is filled; ``sort`` where it is a number."""


def range_text(metric: Metric, estimate: Estimate, *, brief: bool = False) -> str:
    """Return ``280–400 ms``; why there is no interval; or an empty text."""
    if estimate.has_interval:
        return metric.range_text(estimate.low, estimate.high, brief=brief)
    return estimate.why or ""


def estimate_text(metric: Metric, estimate: Estimate, *, brief: bool = False) -> str:
    """Return ``310 ms (280–400 ms)``, ``needs 72 requests``, or the sign for absent; ``brief`` with two digits."""
    if estimate.value is None:
        return needs_text(estimate)
    interval = range_text(metric, estimate, brief=brief)
    value = metric.brief_text(estimate.value) if brief else metric.text(estimate.value)
    return f"{value} ({interval})" if interval else value


def judged_text(metric: Metric, estimate: Estimate, *, brief: bool = False) -> str:
    """Return the same as a rule judges it: where one end alone is known, that end, ``1.1 s or more``."""
    end, word = (estimate.high, "less") if estimate.low is None else (estimate.low, "more")
    if estimate.value is not None or end is None:
        return estimate_text(metric, estimate, brief=brief)
    return f"{metric.brief_text(end) if brief else metric.text(end)} or {word}"


def needs_text(estimate: Estimate) -> str:
    """Return ``needs 72 requests`` if something was measured but too little of it, else the sign for absent."""
    if not estimate.n or estimate.needs is None:
        return ABSENT
    return f"needs {estimate.needs} {estimate.unit}"


def of_such_cases(figures: Figures) -> Estimate:
    """Return ``correct`` as a rate of such cases, where the share is of these cases."""
    return figures.such_cases.get("correct", Estimate(0))


def row(group: RunGroup, cells: Sequence[TableCell]) -> dict[str, Any]:
    """Return a table row with its run group, by which the page filters, and its marks."""
    return {"line": line_of(group), "cells": cells}


def line_of(group: RunGroup) -> dict[str, Any]:
    """Return the run group as tables name it."""
    return {"id": group.id, "name": group.name, "marks": group.marks}


def cell(metric: Metric, estimate: Estimate) -> TableCell:
    if estimate.value is None:
        needs = needs_text(estimate)
        return {"value": "", "range": "", "needs": needs} if needs != ABSENT else plain(ABSENT)
    interval = range_text(metric, estimate, brief=True)
    return {"value": metric.brief_text(estimate.value), "range": interval, "needs": "", "sort": f"{estimate.value:g}"}


def plain(text: str) -> TableCell:
    return {"value": text, "range": "", "needs": ""}
