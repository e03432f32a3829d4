"""A report for a pull request: the answer, what stands against it, and one table.

Invariant: no text from outside is markup: what Markdown or HTML would take as such is escaped.
"""

from __future__ import annotations

from structbench import __version__
from structbench.formatting import markdown_text, share_text
from structbench.reports.document import Document
from structbench.reports.terms import estimate_text, value_text
from structbench.results.figures import Figures
from structbench.results.groups import Line
from structbench.stats import Estimate

_COLUMNS = ("model", "suite", "load", "requests", "errors", "correct", "TTFT p50", "TTFT p95", "ITL p99", "TPOT p50",
            "correct/s", "verdict")  # fmt: skip


def to_markdown(document: Document) -> str:
    """The report as GitHub's Markdown."""
    headline = document.headline
    parts = [f"**{markdown_text(headline.text)}**", markdown_text(headline.rule)]
    parts += [f"> **{markdown_text(note)}**" for note in headline.notes]
    rows = [_row(line, document.figures[line.id]) for line in document.lines]
    table = [_COLUMNS, ("---",) * 3 + ("--:",) * 8 + ("---",), *rows]
    parts.append("\n".join(f"| {' | '.join(row)} |" for row in table))
    reasons = [
        f"- {markdown_text(line.name)}: {markdown_text('; '.join(line.reasons))}"
        for line in document.lines
        if line.reasons
    ]
    if reasons:
        parts.append("\n".join(reasons))
    how = "runs of one config pooled" if document.pooled else "each run apart"
    parts.append(f"<sub>structbench {__version__}, {how}; (…): 95 % intervals.</sub>")
    return "\n\n".join(parts) + "\n"


def _row(line: Line, figures: Figures) -> tuple[str, ...]:
    counts, latencies = figures.counts, figures.latencies
    load = line.name.removeprefix(f"{line.model} {line.suite} ")
    marks = ", ".join(line.marks) or str(line.verdict)
    errors = f"{counts['errors']:,} ({share_text(figures.shares['error_rate'].value)})" if counts["errors"] else "0"
    return (
        markdown_text(line.model), markdown_text(line.suite), markdown_text(load), f"{counts['requests']:,}", errors,
        _cell("correct", figures.shares["correct"]),
        _cell("ttft_s", latencies["ttft_s"]["p50"]), _cell("ttft_s", latencies["ttft_s"]["p95"]),
        _cell("itl_s", latencies["itl_s"]["p99"]), _cell("tpot_s", latencies["tpot_s"]["p50"]),
        value_text("correct_goodput", figures.correct_goodput.value), f"**{marks}**" if line.marks else marks,
    )  # fmt: skip


def _cell(name: str, estimate: Estimate) -> str:
    return estimate_text(name, estimate).replace(" ", "\u00a0")
