"""What the page shows, every text written out.

Invariant: the template only places texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from structbench.formatting import ABSENT, rate_text, span_text
from structbench.metrics import LATENCIES, METRICS, of_kind
from structbench.reports.cells import cell, plain, row
from structbench.reports.charts import charts_of, drawn_of
from structbench.reports.document import Document
from structbench.reports.estimates import estimate_text
from structbench.reports.headline import Candidate, Check, Headline
from structbench.reports.wrong_view import wrong_view
from structbench.results.figures import Figures
from structbench.results.groups import SIMULATED, Line

_SIGNS = {"met": "✓", "open": "?", "missed": "✗"}
_STATES = {"met": ("yes", "good"), "open": ("not shown", "unsure"), "missed": ("no", "")}


def view_of(document: Document) -> dict[str, Any]:
    """Everything the template names."""
    details = document.details or {}
    lines, figures, headline = document.lines, document.figures, document.headline
    return {
        "title": headline.sentences[0],
        "made_at": _instant(document.made_at), "database": document.database,
        **_answer(headline),
        "facts": _facts(document),
        "pooled": "Runs of one config are pooled." if document.pooled else "Each run stands apart.",
        "lines": [_line(line, figures[line.id]) for line in lines],
        "filters": [
            (name, list(dict.fromkeys(getattr(line, name) for line in lines))) for name in ("model", "suite", "load")
        ],
        "answers": _answers(lines, figures),
        "speed": _speed(lines, figures),
        "charts": charts_of(lines, figures, details),
        "wrong": wrong_view(details["wrong"], lines, figures),
        "drawn": drawn_of(document, details),
    }  # fmt: skip


def _answer(headline: Headline) -> dict[str, Any]:
    simulated = [note for note in headline.notes if note.startswith(SIMULATED)]
    lead, *parts = headline.sentences
    return {
        "answer": {"state": headline.state, "lead": lead, "parts": parts, "rule": headline.rule,
                   "notes": [note for note in headline.notes if note not in simulated]},
        "simulated": simulated[0].removeprefix(f"{SIMULATED}: ") if simulated else "",
        "conditions": [condition.text for condition in headline.conditions],
        "candidates": [_candidate(each, headline) for each in headline.candidates],
    }  # fmt: skip


def _candidate(candidate: Candidate, headline: Headline) -> dict[str, Any]:
    state, style = _STATES[candidate.state] if candidate.judged else ("not judged", "unsure")
    marks = [mark for line in candidate.lines for mark in line.marks]
    name = " ".join([candidate.name, *dict.fromkeys(f"[{mark}]" for mark in marks)])
    checks = [
        [_check(check) for check in candidate.checks if check.condition == condition]
        for condition in headline.conditions
    ]
    return {"name": name, "state": state, "style": style, "checks": checks}


def _check(check: Check) -> dict[str, str]:
    text = estimate_text(check.condition.metric, check.estimate)
    return {"sign": _SIGNS[check.state], "text": f"{check.line.suite}: {text}"}


def _facts(document: Document) -> list[tuple[str, str]]:
    """What was run, on what, when."""
    lines = document.lines
    models = dict.fromkeys(
        f"{line.model}{f' ({line.model_digest[:12]})' if line.model_digest else ''}" for line in lines
    )
    starts = [line.started_at for line in lines if line.started_at is not None]
    ends = [line.finished_at for line in lines if line.finished_at is not None]
    requests = sum(document.figures[line.id].counts["requests"] for line in lines)
    environments = [line.environment for line in lines]
    facts = {
        "models": models,
        "suites": dict.fromkeys(line.suite for line in lines),
        "loads": dict.fromkeys(line.load for line in lines),
        "requests": [f"{requests:,} in {sum(len(line.run_ids) for line in lines):,} runs"],
        "when (UTC)": [f"{_instant(min(starts, default=None))} to {_instant(max(ends, default=None))}"],
        "server version": dict.fromkeys(str(line.server_version or ABSENT) for line in lines),
        "server address": dict.fromkeys(str(line.config.get("server_address", ABSENT)) for line in lines),
        "client machine": dict.fromkeys(_machine(each) for each in environments),
        "limits of correct goodput": dict.fromkeys(limit for line in lines for limit in line.goodput_limits),
    }
    return [(name, ", ".join(values)) for name, values in facts.items() if values]


def _machine(environment: Mapping[str, Any]) -> str:
    known = [str(environment[key]) for key in ("system",) if environment.get(key)]
    known += [f"{environment['cores']} cores"] if environment.get("cores") else []
    known += [f"Python {environment['python']}"] if environment.get("python") else []
    return "; ".join(known) or ABSENT


def _line(line: Line, figures: Figures) -> dict[str, Any]:
    done, planned = figures.counts["requests"], line.planned
    short = planned is not None and done < planned
    return {
        "id": line.id, "name": line.name, "marks": line.marks,
        "requests": f"{done:,} of {planned:,}" if short else f"{done:,}",
        "took": span_text(line.duration_s), "started": _instant(line.started_at),
        "verdict": ": ".join([str(line.verdict or "none"), "; ".join(line.reasons)]).removesuffix(": "),
        "label": ", ".join(line.labels) or ABSENT, "runs": ", ".join(line.run_ids),
    }  # fmt: skip


def _instant(instant: datetime | None) -> str:
    return ABSENT if instant is None else f"{instant:%Y-%m-%d %H:%M}"


def _answers(lines: Sequence[Line], figures: Mapping[int, Figures]) -> dict[str, Any]:
    shares = [metric for metric in of_kind("share") if any(each.of(metric).n for each in figures.values())]
    rows = []
    for line in lines:
        own = figures[line.id]
        cells = [plain(f"{own.counts['requests']:,}"), plain(f"{own.counts['errors']:,}")]
        cells += [cell(metric, own.of(metric)) for metric in (*shares, METRICS["correct_goodput"])]
        rows.append(row(line, cells))
    header = ["requests", "failed", *(metric.label for metric in shares), "correct/s"]
    return {"caption": "Share of the answers that were right", "header": header, "rows": rows}


def _speed(lines: Sequence[Line], figures: Mapping[int, Figures]) -> dict[str, Any]:
    latencies = [metric for metric in LATENCIES.values() if any(each.has(metric) for each in figures.values())]
    shown = [metric.at(p) for metric in latencies for p in metric.shown]
    rows = []
    for line in lines:
        own = figures[line.id]
        cells = [cell(figure, own.of(figure)) for figure in shown]
        rates = (own.stream_tokens_per_s, own.rates["tokens_per_s"].value, own.rates["requests_per_s"].value)
        rows.append(row(line, [*cells, *(plain(rate_text(rate)) for rate in rates)]))
    header = [figure.label for figure in shown]
    header += ["tokens/s, one stream", "tokens/s, all", "requests/s"]
    return {"caption": "How fast answers came", "header": header, "rows": rows}
