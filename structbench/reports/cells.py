"""The cells and rows of the page's tables.

Invariant: a row knows its line, so that the filter finds it, and shows what stands against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from structbench.formatting import ABSENT
from structbench.metrics import Metric
from structbench.reports.estimates import needs_text, range_text
from structbench.results.groups import Line
from structbench.stats import Estimate

Cell = Mapping[str, str]
"""value, range, needs: at most the first two, or the last."""


def row(line: Line, cells: Sequence[Cell]) -> dict[str, Any]:
    return {"line": {"id": line.id, "name": line.name, "marks": line.marks}, "cells": cells}


def cell(metric: Metric, estimate: Estimate) -> Cell:
    if estimate.value is None:
        needs = needs_text(estimate)
        return {"value": "", "range": "", "needs": needs} if needs != ABSENT else plain(ABSENT)
    return {"value": metric.text(estimate.value), "range": range_text(metric, estimate), "needs": ""}


def plain(text: str) -> Cell:
    return {"value": text, "range": "", "needs": ""}
