"""The dashboard *Under load*: what concurrency or rate does to latency and to correctness.

Prometheus has time on its x axis, but a load level is a label: hence bars over whole runs, one group per level.
"""

from __future__ import annotations

from typing import Any

from grafana import parts, queries
from grafana.models import GOODPUT, goodput, share
from grafana.parts import COUNT, PER_SECOND, SECONDS, SHARE, TOKENS_PER_S, Column, Query
from grafana.queries import (
    COMPLETED,
    E2E,
    ITL,
    LOAD,
    MODEL,
    REQUESTS,
    SUITE,
    TTFT,
    last,
    mean,
    quantile,
    shown_as,
    total,
)
from loadgen.telemetry import instruments as of
from loadgen.telemetry.instruments import prometheus

BY = (MODEL, SUITE, LOAD)
_RUN = " By load (c: requests in flight, rate: requests/s), for the newest run of each cell in the time range."


def build() -> Any:
    rows = {"Answers": _answers(), "Latency": _latency(), "Throughput": _throughput(), "All figures": [_table()]}
    text = "The same models and suites at rising load levels: where latency bends, and whether answers suffer too."
    return parts.board("structbench-under-load", "Under load", text, rows, live=False)


def _bars(title: str, text: str, unit: str, expr: str, **look: Any) -> Any:
    query = Query(queries.with_level(expr), f"{{{{{MODEL}}}}} {{{{{SUITE}}}}}")
    return parts.bars_by_load(title, text + _RUN, unit, query, **look)


def _percentile(q: float, histogram: str, more: str = "") -> str:
    return quantile(q, last(f"{histogram}_bucket", more), BY)


def _answers() -> list[Any]:
    errors = "Failed requests / all requests; in an open loop, dropped ones count as failed."
    return [
        _bars(
            "Accuracy",
            "Mean accuracy score, 0 to 1.",
            SHARE,
            mean(shown_as("accuracy"), BY, whole=True),
            width=12,
            max=1,
            limits=parts.GOOD_FROM,
            below="red",
        ),
        _bars("Errors", errors, SHARE, queries.error_share(BY), width=12, limits=parts.FEW_ERRORS),
    ]


def _latency() -> list[Any]:
    wait: parts.Look = {"limits": parts.WAIT}
    queue = mean(prometheus(of.QUEUE), BY, whole=True)
    return [
        _bars("TTFT p50", "Median time to first token.", SECONDS, _percentile(0.5, TTFT), **wait),
        _bars("TTFT p95", "95th percentile of the time to first token.", SECONDS, _percentile(0.95, TTFT), **wait),
        _bars("ITL p95", "95th percentile of the gaps between chunks.", SECONDS, _percentile(0.95, ITL)),
        _bars("End to end p50", "Median of last message − sent.", SECONDS, _percentile(0.5, E2E, COMPLETED), **wait),
        _bars(
            "End to end p95",
            "95th percentile of last message − sent.",
            SECONDS,
            _percentile(0.95, E2E, COMPLETED),
            **wait,
        ),
        _bars("Queue", "Mean time not in the server's durations: waiting for a slot, network.", SECONDS, queue),
    ]


def _throughput() -> list[Any]:
    tokens = "Output tokens of all streams / seconds during which requests were in flight, counted as whole seconds. "
    tokens += "Empty where an answer has no count."
    return [
        _bars("Correct goodput", GOODPUT, PER_SECOND, goodput(BY)),
        _bars("Output tokens/s", tokens, TOKENS_PER_S, queries.tokens_per_busy_second(BY)),
        _bars("Tokens/s of one stream", "Median of 1 / TPOT.", TOKENS_PER_S, _percentile(0.5, queries.STREAM_RATE)),
    ]


def _table() -> Any:
    verdict = f"max by ({', '.join(BY)}) ({last(queries.VERDICT)})"
    columns = [
        Column("requests", total(last(REQUESTS), BY), COUNT),
        Column("errors", queries.error_share(BY), SHARE, parts.FEW_ERRORS),
        share("accuracy", BY),
        Column("TTFT p50", _percentile(0.5, TTFT), SECONDS, parts.WAIT),
        Column("TTFT p95", _percentile(0.95, TTFT), SECONDS, parts.WAIT),
        Column("TTFT p99", _percentile(0.99, TTFT), SECONDS, parts.WAIT),
        Column("ITL p50", _percentile(0.5, ITL), SECONDS),
        Column("e2e p95", _percentile(0.95, E2E, COMPLETED), SECONDS, parts.WAIT),
        Column("tokens/s", queries.tokens_per_busy_second(BY), TOKENS_PER_S),
        Column("correct goodput", goodput(BY), PER_SECOND),
        Column("verdict", verdict, "none", parts.VERDICT, states=parts.VERDICTS),
    ]
    text = "All figures of every load level." + _RUN
    return parts.figures("Levels", text, {MODEL: "model", SUITE: "suite", LOAD: "load"}, columns)
