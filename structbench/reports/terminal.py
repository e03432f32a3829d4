"""A report on the terminal: the answer, the table that a load ends with, and the intervals below it.

Invariant: a percentile of too few requests is a dash here, and the line below says how many it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from structbench.reports.document import Document
from structbench.reports.summary import Column, Group, Row, as_text, print_parts, print_table
from structbench.reports.terms import NAMES, estimate_text
from structbench.results.figures import PERCENTILES, Figures
from structbench.results.groups import Line
from structbench.stats import Estimate, needed

if TYPE_CHECKING:
    from rich.console import Console

_SHARES = ("correct", "json_valid", "schema_valid", "tool_calls_right", "error_rate")
_LATENCIES = (("ttft_s", "p50"), ("ttft_s", "p95"), ("ttft_s", "p99"), ("itl_s", "p50"), ("itl_s", "p99"),
              ("tpot_s", "p50"), ("e2e_s", "p95"))  # fmt: skip


def print_document(document: Document, console: Console) -> None:
    """The whole report."""
    headline = document.headline
    console.print(as_text(headline.text, "bold"), as_text(headline.rule), sep="\n")
    for note in headline.notes:
        console.print(as_text(note, "bold yellow"))
    console.print()
    rows = [row_of(line, document.figures[line.id]) for line in document.lines]
    print_table(rows, console)
    name = Column("cell", lambda row: str(row["name"]), right=False)
    print_parts("Intervals (95 %)", name, [*_groups(rows)], rows, console)
    if any(row["too_few"] for row in rows):
        counts = ", ".join(f"{name} {needed(p)}" for name, p in PERCENTILES.items())
        console.print(as_text(f"– or needs …: too few requests to tell ({counts}; docs/statistics.md)"))


def row_of(line: Line, figures: Figures) -> dict[str, Any]:
    """The line as the table takes it, and its estimates by name."""
    latencies = {f"{name.removesuffix('_s')}_{p}": figures.latencies[name][p] for name, p in _LATENCIES}
    latencies["e2e_p50"] = figures.latencies["e2e_s"]["p50"]
    estimates = {**{name: figures.shares[name] for name in _SHARES}, **latencies}
    shares = {name: figures.shares[name].value for name in ("json_valid", "schema_valid", "accuracy")}
    load = line.name.removeprefix(f"{line.model} {line.suite} ")
    return {
        "name": _marked(line, line.name), "model": line.model, "suite": line.suite, "load": _marked(line, load),
        "status": line.status, "planned": line.planned, **figures.counts,
        "verdict": line.verdict, "verdict_reason": "; ".join(line.reasons) or None,
        **{f"{name}_s": each.value for name, each in latencies.items()}, **shares,
        "tool_call_accuracy": figures.shares["tool_calls_right"].value,
        "stream_tokens_per_s": figures.stream_tokens_per_s, "tokens_per_s": figures.tokens_per_s,
        "correct_goodput": figures.correct_goodput.value, "estimates": estimates,
        "too_few": any(each.n and each.value is None for each in latencies.values()),
    }  # fmt: skip


def _marked(line: Line, text: str) -> str:
    """A simulated or unfinished run is called so wherever it is named; the verdict has a column of its own."""
    marks = [mark for mark in line.marks if mark != line.verdict and mark != "no verdict"]
    return " ".join([text, *marks])


def _groups(rows: list[dict[str, Any]]) -> Iterator[Group]:
    """A group for each figure that any line has."""
    for name in rows[0]["estimates"] if rows else ():
        known = [row["estimates"][name] for row in rows]
        if any(each.n for each in known):
            base, _, p = name.rpartition("_")
            header = f"{NAMES[f'{base}_s']} {p}" if p in PERCENTILES else NAMES[name]
            yield (Column(header, _shown(name)),)


def _shown(name: str) -> Any:
    def shown(row: Row) -> str:
        estimate: Estimate = row["estimates"][name]
        return estimate_text(name, estimate)

    return shown
