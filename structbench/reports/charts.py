"""Charts of the page; whatever ``page/page.js`` draws is also in the table below it, for those who cannot see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from structbench.formatting import ABSENT, latency_text, share_text
from structbench.metrics import CHARTED, METRICS, PERCENTILES, SCORES, Metric, without_stream
from structbench.reports.document import Document
from structbench.reports.estimates import TableCell, cell, plain, row
from structbench.results.chart_data import PARTS
from structbench.results.figures import Figures
from structbench.results.groups import RunGroup
from structbench.stats import Estimate

_TENTHS = range(0, 101, 10)
_BY_LOAD = tuple(METRICS[name].at(p) for name in ("ttft", "e2e") for p in ("p50", "p95"))


class Chart(NamedTuple):
    name: str
    """The name in page.js."""
    title: str
    text: str
    header: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    metric: bool = False
    """Whether the reader can choose the latency."""


FIRST = 3
"""How many of the charts stand right below the answer."""


def charts_of(document: Document, details: Mapping[str, Any]) -> list[Chart]:
    """Return the charts in page order."""
    groups, figures = document.groups, document.figures
    by_id = {group.id: group for group in groups}
    return [
        _tradeoff(document),
        _load(groups, figures),
        _throughput(groups, figures),
        _shares(groups, figures),
        _outcomes(groups, figures),
        _percentiles(groups, figures),
        _curves(by_id, figures, details["curves"]),
        _positions(by_id, details["positions"]),
        _parts(by_id, details["parts"]),
        _timeline(by_id, details["timeline"]),
    ]


def latency_of_rule(document: Document) -> tuple[Metric, float | None]:
    """Return the latency that the rule limits and its limit, or the median where nothing has as many requests."""
    conditions = [each for each in document.headline.conditions if each.metric.kind == "latency"]
    for each in conditions:
        if any(own.judged(each.metric).value is not None for own in document.figures.values()):
            return each.metric, each.value
    return METRICS[conditions[0].metric.base if conditions else "ttft"].at("p50"), None


def _tradeoff(document: Document) -> Chart:
    latency, limit = latency_of_rule(document)
    rows = [
        row(group, [cell(METRICS["correct"], own.of(METRICS["correct"])), cell(latency, own.judged(latency)),
                    plain(without_stream(latency).label if own.whole else latency.label)])
        for group in document.groups if (own := document.figures[group.id])
    ]  # fmt: skip
    how = "the shaded region is what the rule asks for" if limit is not None else "too few requests for the rule's own"
    return Chart(
        "tradeoff", "Correct against latency",
        f"A point for each run group, with the intervals of both: {latency.label}, and the share of correct answers; "
        f"{how}. Answers that came whole have {without_stream(latency).label} instead.",
        ["correct", "latency", "which"], rows,
    )  # fmt: skip


def _load(groups: Sequence[RunGroup], figures: Mapping[int, Figures]) -> Chart:
    rows = [
        row(group, [plain(group.load), *(cell(each, figures[group.id].told(each)) for each in _BY_LOAD)])
        for group in groups
    ]
    return Chart(
        "load", "Latency against load", "TTFT and the whole answer (e2e) at each load: medians with their intervals.",
        ["load", *(each.label for each in _BY_LOAD)], rows,
    )  # fmt: skip


def _throughput(groups: Sequence[RunGroup], figures: Mapping[int, Figures]) -> Chart:
    shown = (METRICS["requests_per_s"], METRICS["correct_goodput"])
    rows = [row(group, [plain(group.load), *(cell(each, figures[group.id].of(each)) for each in shown)])
            for group in groups]  # fmt: skip
    return Chart(
        "throughput", "Throughput and correct answers against load",
        "Completed requests/s at each load, and how many of them were correct, with the interval.",
        ["load", "completed/s", "correct/s"], rows,
    )  # fmt: skip


def _shares(groups: Sequence[RunGroup], figures: Mapping[int, Figures]) -> Chart:
    rows = [row(group, [cell(metric, figures[group.id].of(metric)) for metric in SCORES]) for group in groups]
    header = [metric.label for metric in SCORES]
    text = "Share of answers, each with its 95 % interval."
    return Chart("shares", "Accuracy by model and suite", text, header, rows)


def _outcomes(groups: Sequence[RunGroup], figures: Mapping[int, Figures]) -> Chart:
    rows = []
    for group in groups:
        requests = figures[group.id].counts["requests"]
        for name, _, n in figures[group.id].outcomes:
            rows.append(row(group, [plain(name), plain(f"{n:,}"), plain(share_text(n / requests))]))
    text = "All requests: answers by score, failures by kind."
    return Chart("outcomes", "How requests ended", text, ["outcome", "requests", "share"], rows)


def charted_latencies(figures: Mapping[int, Figures]) -> list[Metric]:
    """Return the latencies with charts, without those that add nothing here."""
    return [metric for metric in CHARTED if any(each.has(metric) for each in figures.values())]


def _percentiles(groups: Sequence[RunGroup], figures: Mapping[int, Figures]) -> Chart:
    rows = []
    for group in groups:
        for metric in charted_latencies(figures):
            own = figures[group.id]
            rows.append(row(group, [plain(metric.label), *(cell(metric, own.told(metric.at(p))) for p in PERCENTILES)]))
    text = "Each percentile with its 95 % interval; a percentile is not drawn where there are too few requests."
    return Chart("percentiles", "Latency percentiles", text, ["latency", *PERCENTILES], rows, metric=True)


def _curves(
    groups: Mapping[int, RunGroup], figures: Mapping[int, Figures], curves: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Chart:
    rows = []
    for metric in charted_latencies(figures):
        for curve in curves[metric.key]:
            values = [plain(latency_text(curve["values"][i])) for i in _TENTHS]
            rows.append(row(groups[curve["line"]], [plain(metric.label), plain(share_text(curve["share"])), *values]))
    text = "Share of requests that took at most this long. Failed requests never count: they keep a curve below 100 %."
    header = ["latency", "completed", *(f"{i} %" for i in _TENTHS)]
    return Chart("curves", "Latency distribution", text, header, rows, metric=True)


def _positions(groups: Mapping[int, RunGroup], positions: Sequence[Mapping[str, Any]]) -> Chart:
    rows = [
        row(groups[each["line"]], [plain(f"{each['from']}–{each['to']}"), plain(f"{each['n']:,}"),
                                   _gap_cell(each["p50"]), _gap_cell(each["p95"])])
        for each in positions
    ]  # fmt: skip
    text = "Median (with its interval) and p95 of the mean gap by position in the answer, over the answers long enough."
    return Chart("positions", "Gap between chunks along the answer", text, ["chunks", "requests", "p50", "p95"], rows)


def _gap_cell(shown: Mapping[str, float] | None) -> TableCell:
    if shown is None:
        return plain(ABSENT)
    return cell(METRICS["itl"], Estimate(1, shown["value"], shown["low"], shown["high"]))


def _parts(groups: Mapping[int, RunGroup], parts: Sequence[Mapping[str, Any]]) -> Chart:
    rows = [
        row(groups[each["line"]], [plain(f"{each['n']:,}"), *(plain(latency_text(each[part])) for part in PARTS)])
        for each in parts
    ]
    header = ["requests", *(name.removesuffix("_s").replace("_", " ") for name in PARTS)]
    text = (
        "Means (they add up), counted from the instant a request was due. "
        "The rest is queueing, the network and the first decode."
    )
    return Chart("parts", "Breakdown of time to first token", text, header, rows)


def _timeline(groups: Mapping[int, RunGroup], timeline: Sequence[Mapping[str, Any]]) -> Chart:
    drawn, requests = (sum(each[key] for each in timeline) for key in ("shown", "requests"))
    how = "Every request" if drawn == requests else f"An even sample of {drawn:,} of {requests:,} requests"
    header = ["drawn", "requests", "first third: median TTFT", "middle third", "last third"]
    return Chart(
        "timeline", "Requests over time", f"{how} by the time sent: how long each took and how it ended.",
        header, [row(groups[each["line"]], _thirds(each)) for each in timeline], metric=True,
    )  # fmt: skip


def _thirds(each: Mapping[str, Any]) -> list[TableCell]:
    """Return the median TTFT of the requests drawn, for each third of the run."""
    known = [value for value in each["ttft_s"] if value is not None]
    cuts = [round(len(known) * i / 3) for i in range(4)]
    parts = [known[start:end] for start, end in pairwise(cuts)]
    texts = [latency_text(median(part)) if len(part) >= 6 else ABSENT for part in parts]
    return [plain(f"{each['shown']:,}"), plain(f"{each['requests']:,}"), *map(plain, texts)]


def _ends(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def chart_values(document: Document, details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data that page.js draws."""
    groups, figures = document.groups, document.figures
    limits = [each.value for each in document.headline.conditions if each.metric.name == "correct"]
    latency, limit = latency_of_rule(document)
    latencies = charted_latencies(figures)
    return {
        "lines": [
            {"id": group.id, "name": group.name, "short": group.name.replace(f" {group.suite} ", " · ", 1),
             "model": group.model, "suite": group.suite, "load": group.load, "server": group.server,
             "level": group.level, "kind": group.load_kind, "variant": group.distinct_load.removeprefix(group.load)}
            for group in groups
        ],
        "latencies": {metric.key: metric.title for metric in latencies},
        "scores": {metric.name: metric.label for metric in SCORES},
        "percentiles": {
            metric.key: [
                {"line": group.id, "p": p, "n": each.n, "value": each.value, "low": each.low, "high": each.high}
                for group in groups
                for p, each in figures[group.id].latencies[metric.key].items() if each.value is not None
            ]
            for metric in latencies
        },
        "shares": [
            {"line": group.id, "share": name, "n": each.n, "value": each.value, "low": each.low, "high": each.high}
            for group in groups for name, each in figures[group.id].shares.items()
            if METRICS[name] in SCORES and each.value is not None
        ],
        "outcomes": [
            {"line": group.id, "outcome": name, "failed": failed, "count": n,
             "of": figures[group.id].counts["requests"]}
            for group in groups for name, failed, n in figures[group.id].outcomes
        ],
        "throughput": {
            group.id: {"requests_per_s": figures[group.id].rates["requests_per_s"].value,
                      "correct": {"value": (right := figures[group.id].rates["correct_goodput"]).value,
                                  "low": right.low, "high": right.high}}
            for group in groups
        },
        "limit_correct": limits[0] if limits else None,
        "tradeoff": {
            "latency": latency.label, "limit": limit,
            "points": [
                {"line": group.id, "which": without_stream(latency).label if own.whole else latency.label,
                 "x": _ends(own.judged(latency)), "y": _ends(own.of(METRICS["correct"]))}
                for group in groups
                if (own := figures[group.id]).of(METRICS["correct"]).value is not None
                and own.judged(latency).value is not None
            ],
        },
        "by_load": [
            {"line": group.id, "latency": name, **_ends(own.told(METRICS[name].at("p50")))}
            for group in groups for name in ("ttft", "e2e")
            if (own := figures[group.id]).told(METRICS[name].at("p50")).value is not None
        ],
        **{name: details[name] for name in ("curves", "positions", "parts", "timeline")},
    }  # fmt: skip
