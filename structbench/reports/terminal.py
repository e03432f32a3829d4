"""A whole report as text (``--wide``): the headline, a table of all figures, and the intervals below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from rich.console import Console

from structbench.metrics import LATENCIES, METRICS, PERCENTILES, Metric, of_kind
from structbench.reports.document import Document
from structbench.reports.estimates import ABOUT_CASES, SUCH_CASES, estimate_text, of_such_cases
from structbench.reports.summary import Column, ColumnGroup, Row, as_text, print_parts, print_table
from structbench.results.figures import Figures
from structbench.results.groups import RunGroup
from structbench.results.nodes import node_table
from structbench.stats import needed

_SPEED = [metric.at(p) for metric in LATENCIES.values() for p in metric.shown]


def print_document(document: Document, console: Console) -> None:
    """Print the whole report, with every figure and its interval."""
    headline = document.headline
    console.print(as_text(headline.text, "bold"), as_text(headline.rule), sep="\n")
    for note in headline.notes:
        console.print(as_text(note, "bold yellow"))
    console.print()
    figures = document.figures
    rows = [row_of(group, figures[group.id]) for group in document.groups]
    print_table(rows, console)
    name = Column("cell", lambda row: str(row["name"]), right=False)
    print_parts(
        "Intervals (95 %)", name, [*_interval_columns([figures[group.id] for group in document.groups])], rows, console
    )
    if document.nodes:
        header, *texts = node_table(document.nodes, document.groups)
        name, *others = [Column(title, partial(_text_at, place), right=place > 1) for place, title in enumerate(header)]
        print_parts("Nodes", name, [(each,) for each in others], [{"texts": row} for row in texts], console)
    if any(of_such_cases(each).n for each in figures.values()):
        console.print(as_text(ABOUT_CASES))
    if any(row["too_few"] for row in rows):
        counts = ", ".join(f"{name} {needed(p)}" for name, p in PERCENTILES.items())
        console.print(as_text(f'– or "needs …": too few requests for an interval ({counts}; see docs/methods.md)'))


def _text_at(place: int, row: Row) -> str:
    return str(row["texts"][place])


def row_of(group: RunGroup, figures: Figures) -> dict[str, Any]:
    """Return the run group as a row of the table of a load, with its figures."""
    return {
        "name": _marked(group, group.name), "model": group.model, "suite": group.suite,
        "load": _marked(group, group.distinct_load), "status": group.status, "planned": group.planned, **figures.counts,
        "verdict": group.verdict, "verdict_reason": "; ".join(group.reasons) or None,
        "notes": group.notes, "failures": figures.failures,
        **{f"{each.name}_s": figures.told(each).value for each in _SPEED},
        **{each.name: figures.of(each).value for each in of_kind("share", "rate") if each.name != "correct"},
        "stream_tokens_per_s": figures.stream_tokens_per_s, "figures": figures,
        "too_few": any(figures.of(each).n and figures.of(each).value is None for each in _SPEED),
    }  # fmt: skip


def _marked(group: RunGroup, text: str) -> str:
    """Return the text with marks such as SIMULATED; the verdict has a column of its own."""
    marks = [mark for mark in group.marks if mark != group.verdict and mark != "no verdict"]
    return " ".join([text, *marks])


def _interval_columns(found: Sequence[Figures]) -> Iterator[ColumnGroup]:
    """Yield a column group for each share and percentile that any run group has."""
    for metric in (*of_kind("share"), *_SPEED):
        if any(each.has(metric) and each.of(metric).n for each in found):
            yield (Column(metric.label, partial(_estimate_of, metric)),)
        if metric.name == "correct" and any(of_such_cases(each).n for each in found):
            yield (Column(SUCH_CASES.replace(", ", ",\n"), _such_cases),)


def _estimate_of(metric: Metric, row: Row) -> str:
    return estimate_text(metric, row["figures"].told(metric))


def _such_cases(row: Row) -> str:
    return estimate_text(METRICS["correct"], of_such_cases(row["figures"]))
