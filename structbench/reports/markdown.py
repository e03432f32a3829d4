"""A report for a pull request: the headline, its notes, and one table; text from outside is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from structbench import __version__
from structbench.formatting import markdown_text, share_text
from structbench.metrics import LATENCIES, METRICS, Metric
from structbench.reports.document import Document
from structbench.reports.estimates import ABOUT_CASES, SUCH_CASES, estimate_text, of_such_cases
from structbench.reports.summary import MOST_FAILURES
from structbench.results.figures import Figures
from structbench.results.groups import RunGroup
from structbench.results.nodes import node_table
from structbench.stats import Estimate


def to_markdown(document: Document) -> str:
    """Return the report as GitHub's Markdown."""
    headline = document.headline
    parts = [f"**{markdown_text(headline.text)}**", markdown_text(headline.rule)]
    parts += [f"> **{markdown_text(note)}**" for note in headline.notes]
    figures = document.figures
    known = [metric for metric in LATENCIES.values() if any(each.has(metric) for each in figures.values())]
    shown = [metric.at(p) for metric in known for p in metric.brief]
    rows = [_row(group, figures[group.id], shown) for group in document.groups]
    header = ("model", "suite", "load", "requests", "errors", "correct", SUCH_CASES, *(each.label for each in shown),
              "correct/s", "verdict")  # fmt: skip
    table = [header, ("---",) * 3 + ("--:",) * (len(header) - 4) + ("---",), *rows]
    parts.append("\n".join(f"| {' | '.join(row)} |" for row in table))
    if document.nodes:
        header, *told = node_table(document.nodes, document.groups)
        lines = [" | ".join(map(markdown_text, row)) for row in told]
        lines = [" | ".join(header), " | ".join(("---",) * 2 + ("--:",) * (len(header) - 2)), *lines]
        parts.append("\n".join(["**Nodes**", "", *(f"| {line} |" for line in lines)]))
    failures = [
        f"- {markdown_text(group.name)}: {failure.count:,} × {markdown_text(failure.text)}"
        for group in document.groups
        for failure in figures[group.id].failures[:MOST_FAILURES]
    ]
    if failures:
        parts.append("\n".join(["**Errors**", "", *failures]))
    reasons = [
        f"- {markdown_text(group.name)}: {markdown_text('; '.join(texts))}"
        for group in document.groups
        if (texts := [*group.reasons, *(note.text for note in group.notes)])
    ]
    if reasons:
        parts.append("\n".join(reasons))
    how = "runs of one config pooled" if document.pooled else "one row per run"
    parts.append(f"<sub>structbench {__version__}, {how}; 95 % intervals in parentheses. {ABOUT_CASES}</sub>")
    return "\n\n".join(parts) + "\n"


def _row(group: RunGroup, figures: Figures, shown: Sequence[Metric]) -> tuple[str, ...]:
    counts = figures.counts
    marks = markdown_text(", ".join(group.marks) or str(group.verdict))
    errors = f"{counts['errors']:,} ({share_text(figures.shares['error_rate'].value)})" if counts["errors"] else "0"
    steady = f" ({counts['steady']:,} steady)" if 0 < (counts.get("steady") or 0) < counts["requests"] else ""
    return (
        markdown_text(group.model), markdown_text(group.suite), markdown_text(group.distinct_load),
        f"{counts['requests']:,}{steady}", errors,
        _estimate(METRICS["correct"], figures.of(METRICS["correct"])),
        _estimate(METRICS["correct"], of_such_cases(figures)), *(_estimate(each, figures.told(each)) for each in shown),
        METRICS["correct_goodput"].text(figures.rates["correct_goodput"].value),
        f"**{marks}**" if group.marks else marks,
    )  # fmt: skip


def _estimate(metric: Metric, estimate: Estimate) -> str:
    return estimate_text(metric, estimate).replace(" ", "\u00a0")
