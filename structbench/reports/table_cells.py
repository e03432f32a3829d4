"""Cells and rows of the page's tables. A row carries its run group, so that the filter finds it, and its marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from structbench.formatting import ABSENT
from structbench.metrics import Metric
from structbench.reports.estimates import needs_text, range_text
from structbench.results.groups import RunGroup
from structbench.stats import Estimate

TableCell = Mapping[str, str]
"""The keys value, range and needs: either the first two or only the last is filled."""


def row(group: RunGroup, cells: Sequence[TableCell]) -> dict[str, Any]:
    return {"line": {"id": group.id, "name": group.name, "marks": group.marks}, "cells": cells}


def cell(metric: Metric, estimate: Estimate) -> TableCell:
    if estimate.value is None:
        needs = needs_text(estimate)
        return {"value": "", "range": "", "needs": needs} if needs != ABSENT else plain(ABSENT)
    return {"value": metric.text(estimate.value), "range": range_text(metric, estimate), "needs": ""}


def plain(text: str) -> TableCell:
    return {"value": text, "range": "", "needs": ""}
