"""A report for a pull request: the answer, what stands against it, and one table.

Invariant: no text from outside is markup: what Markdown or HTML would take as such is escaped.
"""

from __future__ import annotations

import re

from structbench import __version__
from structbench.formatting import printable, share_text
from structbench.reports.document import Document
from structbench.reports.terms import estimate_text, value_text
from structbench.results.figures import Figures
from structbench.results.groups import Line
from structbench.stats import Estimate

_COLUMNS = ("model", "suite", "load", "requests", "errors", "correct", "TTFT p50", "TTFT p95", "ITL p99", "TPOT p50",
            "correct/s", "verdict")  # fmt: skip
_MARKUP = re.compile(r"[\\`*_\[\]|~<>&@#$]|:(?=//|\w+:)|(?<=www)\.")
"""Emphasis, links, addresses, emoji, formulas, mentions, HTML, and the sign between columns."""


def to_markdown(document: Document) -> str:
    """The report as GitHub's Markdown."""
    headline = document.headline
    parts = [f"**{escaped(headline.text)}**", escaped(headline.rule)]
    parts += [f"> **{escaped(note)}**" for note in headline.notes]
    rows = [_row(line, document.figures[line.id]) for line in document.lines]
    table = [_COLUMNS, ("---",) * 3 + ("--:",) * 8 + ("---",), *rows]
    parts.append("\n".join(f"| {' | '.join(row)} |" for row in table))
    reasons = [f"- {escaped(line.name)}: {escaped('; '.join(line.reasons))}" for line in document.lines if line.reasons]
    if reasons:
        parts.append("\n".join(reasons))
    how = "runs of one config pooled" if document.pooled else "each run apart"
    parts.append(f"<sub>structbench {__version__}, {how}; (…): 95 % intervals.</sub>")
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """One line that Markdown shows as it is; a name such as @team or a link stays text."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", printable(text))


def _row(line: Line, figures: Figures) -> tuple[str, ...]:
    counts, latencies = figures.counts, figures.latencies
    load = line.name.removeprefix(f"{line.model} {line.suite} ")
    marks = ", ".join(line.marks) or str(line.verdict)
    errors = f"{counts['errors']:,} ({share_text(figures.shares['error_rate'].value)})" if counts["errors"] else "0"
    return (
        escaped(line.model), escaped(line.suite), escaped(load), f"{counts['requests']:,}", errors,
        _cell("correct", figures.shares["correct"]),
        _cell("ttft_s", latencies["ttft_s"]["p50"]), _cell("ttft_s", latencies["ttft_s"]["p95"]),
        _cell("itl_s", latencies["itl_s"]["p99"]), _cell("tpot_s", latencies["tpot_s"]["p50"]),
        value_text("correct_goodput", figures.correct_goodput.value), f"**{marks}**" if line.marks else marks,
    )  # fmt: skip


def _cell(name: str, estimate: Estimate) -> str:
    return estimate_text(name, estimate).replace(" ", "\u00a0")
