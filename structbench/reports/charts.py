"""The charts of the page: what each draws, and the table below it with the same figures.

Invariant: what a chart draws is in its table, for who cannot see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from structbench.formatting import ABSENT, latency_text, share_text
from structbench.metrics import CHARTED, METRICS, PERCENTILES, SCORES, Metric
from structbench.reports.cells import Cell, cell, plain, row
from structbench.reports.document import Document
from structbench.results.chart_data import PARTS
from structbench.results.figures import Figures
from structbench.results.groups import Line
from structbench.stats import Estimate

_TENTHS = range(0, 101, 10)


class Chart(NamedTuple):
    name: str
    """As page.js calls it."""
    title: str
    text: str
    header: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    metric: bool = False
    """Whether the reader chooses the latency."""


def charts_of(lines: Sequence[Line], figures: Mapping[int, Figures], details: Mapping[str, Any]) -> list[Chart]:
    """In the order of the page."""
    by_id = {line.id: line for line in lines}
    return [
        _throughput(lines, figures),
        _shares(lines, figures),
        _outcomes(lines, figures),
        _percentiles(lines, figures),
        _curves(by_id, figures, details["curves"]),
        _positions(by_id, details["positions"]),
        _parts(by_id, details["parts"]),
        _timeline(by_id, details["timeline"]),
    ]


def _throughput(lines: Sequence[Line], figures: Mapping[int, Figures]) -> Chart:
    rows = [
        row(line, [plain(line.load), *(cell(METRICS[name], figures[line.id].rates[name]) for name in _THROUGHPUT)])
        for line in lines
    ]
    return Chart(
        "throughput", "Throughput and correct answers against load",
        "Completed requests a second, and of these the correct ones with their interval, at each load.",
        ["load", "completed a second", "correct a second"], rows,
    )  # fmt: skip


_THROUGHPUT = ("requests_per_s", "correct_goodput")


def _shares(lines: Sequence[Line], figures: Mapping[int, Figures]) -> Chart:
    rows = [row(line, [cell(metric, figures[line.id].of(metric)) for metric in SCORES]) for line in lines]
    header = [metric.label for metric in SCORES]
    text = "Each share of the answers with its 95 % interval."
    return Chart("shares", "Accuracy by model and suite", text, header, rows)


def _outcomes(lines: Sequence[Line], figures: Mapping[int, Figures]) -> Chart:
    rows = []
    for line in lines:
        requests = figures[line.id].counts["requests"]
        for name, _, n in figures[line.id].outcomes:
            rows.append(row(line, [plain(name), plain(f"{n:,}"), plain(share_text(n / requests))]))
    text = "Every request: answers by their score, failures by their kind."
    return Chart("outcomes", "How requests ended", text, ["outcome", "requests", "share"], rows)


def charted(figures: Mapping[int, Figures]) -> list[Metric]:
    """The latencies that have charts, without those that tell nothing of their own here."""
    return [metric for metric in CHARTED if any(each.has(metric) for each in figures.values())]


def _percentiles(lines: Sequence[Line], figures: Mapping[int, Figures]) -> Chart:
    rows = []
    for line in lines:
        for metric in charted(figures):
            estimates = figures[line.id].latencies[metric.key]
            rows.append(row(line, [plain(metric.label), *(cell(metric, estimates[p]) for p in PERCENTILES)]))
    text = "Each percentile with its 95 % interval; one that needs more requests than there are is not drawn."
    return Chart("percentiles", "Latency percentiles", text, ["latency", *PERCENTILES], rows, metric=True)


def _curves(
    lines: Mapping[int, Line], figures: Mapping[int, Figures], curves: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Chart:
    rows = []
    for metric in charted(figures):
        for curve in curves[metric.key]:
            values = [plain(latency_text(curve["values"][i])) for i in _TENTHS]
            rows.append(row(lines[curve["line"]], [plain(metric.label), plain(share_text(curve["share"])), *values]))
    text = (
        "The share of requests that were as fast. Failed requests never are: a curve ends below 100 % by their share."
    )
    header = ["latency", "completed", *(f"{i} %" for i in _TENTHS)]
    return Chart("curves", "Latency distribution", text, header, rows, metric=True)


def _positions(lines: Mapping[int, Line], positions: Sequence[Mapping[str, Any]]) -> Chart:
    rows = [
        row(lines[each["line"]], [plain(f"{each['from']}–{each['to']}"), plain(f"{each['n']:,}"), _gap(each["p50"]),
                                  _gap(each["p95"])])
        for each in positions
    ]  # fmt: skip
    text = (
        "Median (with its interval) and p95 of the mean gap, by place in the answer, over the answers that are so long."
    )
    return Chart(
        "positions", "The gap between chunks over the answer", text, ["chunks", "requests", "p50", "p95"], rows
    )


def _gap(shown: Mapping[str, float] | None) -> Cell:
    if shown is None:
        return plain(ABSENT)
    return cell(METRICS["itl"], Estimate(1, shown["value"], shown["low"], shown["high"]))


def _parts(lines: Mapping[int, Line], parts: Sequence[Mapping[str, Any]]) -> Chart:
    rows = [
        row(lines[each["line"]], [plain(f"{each['n']:,}"), *(plain(latency_text(each[part])) for part in PARTS)])
        for each in parts
    ]
    header = ["requests", *(name.removesuffix("_s").replace("_", " ") for name in PARTS)]
    text = (
        "Means, because they add up, from the instant a request was due. "
        "The rest is queueing, the network and the first decode."
    )
    return Chart("parts", "Time to first token, taken apart", text, header, rows)


def _timeline(lines: Mapping[int, Line], timeline: Sequence[Mapping[str, Any]]) -> Chart:
    drawn, requests = (sum(each[key] for each in timeline) for key in ("shown", "requests"))
    how = "Every request" if drawn == requests else f"{drawn:,} of {requests:,} requests, drawn evenly, each"
    header = ["drawn", "requests", "first third: median TTFT", "middle third", "last third"]
    return Chart(
        "timeline", "Requests over time", f"{how} at the second it was sent: how long it took, and how it ended.",
        header, [row(lines[each["line"]], _thirds(each)) for each in timeline], metric=True,
    )  # fmt: skip


def _thirds(each: Mapping[str, Any]) -> list[Cell]:
    """The median TTFT of what is drawn, in three parts of the run."""
    known = [value for value in each["ttft_s"] if value is not None]
    cuts = [round(len(known) * i / 3) for i in range(4)]
    parts = [known[start:end] for start, end in pairwise(cuts)]
    texts = [latency_text(median(part)) if len(part) >= 6 else ABSENT for part in parts]
    return [plain(f"{each['shown']:,}"), plain(f"{each['requests']:,}"), *map(plain, texts)]


def drawn_of(document: Document, details: Mapping[str, Any]) -> dict[str, Any]:
    """The data of the charts."""
    lines, figures = document.lines, document.figures
    limits = [each.value for each in document.headline.conditions if each.metric.name == "correct"]
    latencies = charted(figures)
    return {
        "lines": [
            {"id": line.id, "name": line.name, "short": line.name.replace(f" {line.suite} ", " · ", 1),
             "model": line.model, "suite": line.suite, "load": line.load, "level": line.level, "kind": line.load_kind,
             "variant": line.name.removeprefix(f"{line.model} {line.suite} {line.load}")}
            for line in lines
        ],
        "latencies": {metric.key: metric.title for metric in latencies},
        "scores": {metric.name: metric.label for metric in SCORES},
        "percentiles": {
            metric.key: [
                {"line": line.id, "p": p, "n": each.n, "value": each.value, "low": each.low, "high": each.high}
                for line in lines
                for p, each in figures[line.id].latencies[metric.key].items() if each.value is not None
            ]
            for metric in latencies
        },
        "shares": [
            {"line": line.id, "share": name, "n": each.n, "value": each.value, "low": each.low, "high": each.high}
            for line in lines for name, each in figures[line.id].shares.items()
            if METRICS[name] in SCORES and each.value is not None
        ],
        "outcomes": [
            {"line": line.id, "outcome": name, "failed": failed, "count": n, "of": figures[line.id].counts["requests"]}
            for line in lines for name, failed, n in figures[line.id].outcomes
        ],
        "throughput": {
            line.id: {"requests_per_s": figures[line.id].rates["requests_per_s"].value,
                      "correct": {"value": (right := figures[line.id].rates["correct_goodput"]).value,
                                  "low": right.low, "high": right.high}}
            for line in lines
        },
        "limit_correct": limits[0] if limits else None,
        **{name: details[name] for name in ("curves", "positions", "parts", "timeline")},
    }  # fmt: skip
