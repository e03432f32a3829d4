"""The dashboard *Models side by side*: the newest run of each model and suite in the time range, compared."""

from __future__ import annotations

from typing import Any

from grafana import parts, queries
from grafana.parts import COUNT, PER_SECOND, SECONDS, SHARE, TOKENS_PER_S, Column, Query
from grafana.queries import ITL, MODEL, REQUESTS, SUITE, TTFT, last, mean, quantile, shown_as, total
from structbench.metrics import METRICS

BY = (MODEL, SUITE)
LEGEND = f"{{{{{MODEL}}}}} {{{{{SUITE}}}}}"
GOODPUT = "Completely correct answers / seconds during which requests were in flight, counted as whole seconds."
_RUN = " Shows the newest run of each cell in the time range; use --label and the variable label for others."


def build() -> Any:
    rows = {"All figures": [_table()], "Quality": _quality(), "Speed": _speed()}
    text = "Which model is correct, which is fast, which is both: by model and suite, over the chosen loads."
    return parts.board("structbench-models", "Models side by side", text, rows, live=False)


def goodput(by: tuple[str, ...]) -> str:
    """Return PromQL for completely correct answers per second with requests in flight."""
    return queries.per_busy_second(REQUESTS, by, queries.CORRECT)


def share(name: str, by: tuple[str, ...]) -> Column:
    """Return a column with the mean of a score."""
    return Column(METRICS[name].label, mean(shown_as(name), by, whole=True), SHARE, parts.GOOD_FROM, "red")


_QUALITY = {
    "accuracy": "Mean accuracy score, 0 to 1.",
    "json_valid": "Share of the answers that are JSON as a whole.",
    "schema_valid": "Share of the answers that satisfy their schema.",
    "tool_call_accuracy": "Right calls / max(expected, made), averaged over answers.",
}


def _table() -> Any:
    columns = [
        Column("requests", total(last(REQUESTS), BY), COUNT),
        Column("errors", queries.error_share(BY), SHARE, parts.FEW_ERRORS),
        *(share(name, BY) for name in _QUALITY),
        Column("TTFT p50", quantile(0.5, last(f"{TTFT}_bucket"), BY), SECONDS, parts.WAIT),
        Column("TTFT p95", quantile(0.95, last(f"{TTFT}_bucket"), BY), SECONDS, parts.WAIT),
        Column("ITL p50", quantile(0.5, last(f"{ITL}_bucket"), BY), SECONDS),
        Column("tokens/s, one stream", quantile(0.5, last(f"{queries.STREAM_RATE}_bucket"), BY), TOKENS_PER_S),
        Column("correct goodput", goodput(BY), PER_SECOND),
    ]
    text = "An empty cell: the suite does not measure that." + _RUN
    return parts.figures("Models and suites", text, {MODEL: "model", SUITE: "suite"}, columns)


def _quality() -> list[Any]:
    def bars(name: str, text: str) -> Any:
        query = Query(mean(shown_as(name), BY, whole=True), LEGEND)
        good: parts.Look = {"limits": parts.GOOD_FROM, "below": "red", "max": 1, "width": 6}
        label = METRICS[name].label
        return parts.levels(label[0].upper() + label[1:], text + _RUN, SHARE, query, **good)

    return [bars(name, text) for name, text in _QUALITY.items()]


def _speed() -> list[Any]:
    def bars(title: str, text: str, unit: str, expr: str, limits: parts.Limits = parts.NO_LIMIT) -> Any:
        return parts.levels(title, text + _RUN, unit, Query(expr, LEGEND), limits=limits, width=6)

    ttft, streams = last(f"{TTFT}_bucket"), last(f"{queries.STREAM_RATE}_bucket")
    return [
        bars("Correct goodput", GOODPUT, PER_SECOND, goodput(BY)),
        bars("TTFT p50", "Median time to first token, interpolated.", SECONDS, quantile(0.5, ttft, BY), parts.WAIT),
        bars("TTFT p95", "95th percentile of the time to first token.", SECONDS, quantile(0.95, ttft, BY), parts.WAIT),
        bars(
            "Tokens/s of one stream",
            "Median of 1 / TPOT: how fast one user sees an answer grow.",
            TOKENS_PER_S,
            quantile(0.5, streams, BY),
        ),
    ]
