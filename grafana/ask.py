"""Running the dashboards' queries against Prometheus over HTTP, with variables filled in as Grafana would.

It needs no Grafana, so that a test or a script can find out what a panel would show.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

FOLDER = Path(__file__).parent / "dashboards"
RATE_INTERVAL_S = 8
"""Grafana's $__rate_interval with a step of 2 s: four steps."""
STEP_S = 2


@dataclass(frozen=True, slots=True)
class Span:
    """The time range of a dashboard, Unix seconds."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One query of one panel, as the dashboard's JSON has it."""

    panel: Mapping[str, Any]
    query: Mapping[str, Any]

    @property
    def instant(self) -> bool:
        return bool(self.query.get("instant"))


def panels(board: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield every panel that shows something, including those in rows."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panels({"panels": panel.get("panels", [])})
        else:
            yield panel


def targets(board: Mapping[str, Any]) -> Iterator[PanelQuery]:
    """Yield every query of every panel."""
    for panel in panels(board):
        for query in panel["targets"]:
            yield PanelQuery(panel, query)


def boards() -> dict[str, dict[str, Any]]:
    """Return file name -> dashboard, as checked in."""
    return {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def filled(expr: str, span: Span, chosen: Mapping[str, str] | None = None) -> str:
    """Fill in the query's variables; one that is not in ``chosen`` is All (name -> regular expression), or 1 cell."""
    values = {"model": ".*", "suite": ".*", "load": ".*", "label": ".*", "cells": "1", **(chosen or {})}
    values |= {"__rate_interval": f"{RATE_INTERVAL_S}s", "__range": f"{max(1, round(span.end_s - span.start_s))}s"}
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(f"${name}", values[name])
    return expr


def result(url: str, target: PanelQuery, span: Span, chosen: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Return the series of a panel's query: with ``value`` for an instant query, ``values`` for a range query."""
    expr = filled(target.query["expr"], span, chosen)
    if target.instant:
        return query(url, expr, span.end_s)
    where = {"query": expr, "start": span.start_s, "end": span.end_s, "step": STEP_S}
    return _get(url, "query_range", where)["result"]  # type: ignore[no-any-return]


def query(url: str, expr: str, at_s: float | None = None) -> list[dict[str, Any]]:
    """Run an instant query: return series with ``metric`` and ``value``."""
    when = {} if at_s is None else {"time": at_s}
    return _get(url, "query", {"query": expr, **when})["result"]  # type: ignore[no-any-return]


def exemplars(url: str, expr: str, span: Span) -> list[dict[str, Any]]:
    """Return what Grafana requests in addition for a query with exemplars."""
    where = {"query": filled(expr, span), "start": span.start_s, "end": span.end_s}
    return _get(url, "query_exemplars", where)  # type: ignore[no-any-return]


def _get(url: str, what: str, parameters: Mapping[str, Any]) -> Any:
    with urlopen(f"{url}/api/v1/{what}?{urlencode(parameters)}", timeout=10) as answer:
        return json.load(answer)["data"]
