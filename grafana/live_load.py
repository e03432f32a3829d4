"""The dashboard *Live load*: the current state of the load and its answers, from the whole down to the cell."""

from __future__ import annotations

from typing import Any

from grafana import parts, queries
from grafana.parts import COUNT, PER_SECOND, SECONDS, SHARE, TOKENS_PER_S, Query
from grafana.queries import (
    CELL,
    CELL_LEGEND,
    FAILED,
    REQUESTS,
    mean,
    newest,
    or_zero,
    quantile,
    rate,
    recent,
    series,
    shown_as,
    total,
)
from loadgen.telemetry import instruments as of
from loadgen.telemetry.instruments import prometheus
from structbench.metrics import Metric


def build() -> Any:
    rows = {
        "Now": _now(),
        "Latency": [panel for metric in queries.LATENCIES for panel in _latency(metric)],
        "Throughput": _throughput(),
        "Answers": _answers(),
        "Can the figures be trusted?": _trust(),
    }
    text = "A load as it runs: rate, latency, correctness, errors, and whether the client keeps up."
    return parts.board("structbench-live-load", "Live load", text, rows, live=True, newest=True)


def _now() -> list[Any]:
    done, planned = total(newest(series(REQUESTS))), total(newest(series(queries.PLANNED)))
    failed = or_zero(total(newest(series(REQUESTS, FAILED))))
    correct = or_zero(total(newest(series(REQUESTS, queries.CORRECT))))
    return [
        parts.number(
            "Requests", "Requests of the running cell that have ended; choose more cells above.", COUNT, Query(done)
        ),
        parts.number(
            "Done",
            "Ended requests / planned ones. Empty if only --duration ends the cell.",
            SHARE,
            Query(f"{done} / {planned}"),
            max=1,
        ),
        parts.number(
            "In flight", "Requests sent and not yet ended.", COUNT, Query(total(newest(series(queries.IN_FLIGHT))))
        ),
        parts.number(
            "Requests/s", "Requests that ended, per second.", PER_SECOND, Query(total(newest(rate(REQUESTS))))
        ),
        parts.number(
            "Output tokens/s",
            "Output tokens of all streams, as the server counted them; they are added when their request ends. "
            "Empty where an answer came without a count that covers it.",
            TOKENS_PER_S,
            Query(total(newest(queries.tokens_per_s()))),
        ),
        parts.number(
            "Correct",
            "Requests with a completely correct answer / all requests, including failed ones.",
            SHARE,
            Query(f"({correct}) / {done}"),
            max=1,
            limits=parts.GOOD_FROM,
            below="red",
        ),
        parts.number(
            "Errors",
            "Requests that failed / all requests.",
            SHARE,
            Query(f"({failed}) / {done}"),
            limits=parts.FEW_ERRORS,
        ),
        parts.number(
            "Verdict",
            "The verdict so far. It judges the measuring client, not the server.",
            "none",
            Query(f"max({newest(series(queries.VERDICT))})"),
            states=parts.VERDICTS,
            limits=parts.VERDICT,
        ),
    ]


def _latency(metric: Metric) -> list[Any]:
    histogram, more = shown_as(metric.name), queries.completed(metric)
    text = "" if metric.instrument is None else f"{metric.instrument.meaning}."
    # Recorded series have no exemplars; the last query, of the buckets themselves, brings them.
    return [
        parts.graph(
            f"{metric.label} percentiles",
            f"{text} Percentiles over the last minute, interpolated between bucket bounds. "
            "A single point is one request (an exemplar).",
            SECONDS,
            *(Query(newest(series(queries.recorded(metric.name, q))), f"p{q} {CELL_LEGEND}") for q in (50, 95, 99)),
            Query(quantile(1, newest(recent(f"{histogram}_bucket", more))), "slowest bucket", exemplar=True),
            limits=parts.NO_LIMIT if metric.counts == "gap" else parts.WAIT,
            width=14,
            height=9,
        ),
        parts.density(
            f"{metric.label} distribution",
            f"{text} Values per second in each bucket.",
            SECONDS,
            Query(total(newest(rate(f"{histogram}_bucket", more)), ("le",)), "{{le}}", exemplar=True),
            width=10,
            height=9,
        ),
    ]


def _throughput() -> list[Any]:
    one_stream = quantile(0.5, newest(recent(f"{queries.STREAM_RATE}_bucket")), CELL)
    return [
        parts.graph(
            "Requests/s",
            "Requests that ended, and those of them that failed, per second.",
            PER_SECOND,
            Query(total(newest(rate(REQUESTS)), CELL), CELL_LEGEND),
            Query(or_zero(total(newest(rate(REQUESTS, FAILED)))), "failed"),
        ),
        parts.graph(
            "In flight",
            "Requests sent and not yet ended, second by second.",
            COUNT,
            Query(newest(series(queries.IN_FLIGHT)), CELL_LEGEND),
        ),
        parts.graph(
            "Output tokens/s",
            "Output tokens of all streams (empty where an answer has no count), and the median of one stream "
            "(1 / TPOT) over the last minute.",
            TOKENS_PER_S,
            Query(newest(queries.tokens_per_s()), f"all {CELL_LEGEND}"),
            Query(one_stream, f"one stream {CELL_LEGEND}"),
        ),
    ]


def _answers() -> list[Any]:
    errors = total(newest(rate(REQUESTS, FAILED)), ("structbench_outcome", "error_type"))
    return [
        parts.graph(
            "Accuracy",
            "Mean accuracy score of the answers of the last minute. A failed request has none.",
            SHARE,
            Query(newest(mean(shown_as("accuracy"), CELL)), CELL_LEGEND),
            limits=parts.GOOD_FROM,
            below="red",
            max=1,
        ),
        parts.graph(
            "Outcomes",
            "How requests ended, per second; docs/scoring.md explains the words.",
            PER_SECOND,
            Query(total(newest(rate(REQUESTS)), ("structbench_outcome",)), "{{structbench_outcome}}"),
            stacked=True,
            bars=True,
        ),
        parts.graph(
            "Errors by kind",
            "Requests that failed, per second, by kind; 0 if none do.",
            PER_SECOND,
            Query(or_zero(errors), "{{structbench_outcome}} {{error_type}}"),
            limits=((0.0001, "red"),),
            stacked=True,
            bars=True,
        ),
    ]


def _trust() -> list[Any]:
    alerts = 'count by (alertname) (ALERTS{alertname=~"Structbench.*", alertstate="firing"})'
    ttft = series(queries.recorded("ttft", 99))
    lag = {name: newest(f"{series(queries.recorded(name, 99))} / {ttft}") for name in ("send_lag", "read_lag")}
    merged, chunks = (total(newest(recent(prometheus(name)))) for name in (of.MERGED_CHUNKS, of.CHUNKS))
    return [
        parts.bands(
            "Verdict",
            "The verdict so far. It judges the measuring client, not the server.",
            Query(newest(series(queries.VERDICT)), CELL_LEGEND),
            states=parts.VERDICTS,
            limits=parts.VERDICT,
        ),
        parts.graph(
            "Client lag",
            "How late requests were sent, and how long received bytes waited, as shares of TTFT: p99 / p99 over the "
            "last minute. The verdict judges what that does to the figures: degraded from 5 % on.",
            SHARE,
            Query(lag["send_lag"], f"send lag {CELL_LEGEND}"),
            Query(lag["read_lag"], f"read lag {CELL_LEGEND}"),
            limits=parts.LAG,
        ),
        parts.graph(
            "Alerts and lost spacing",
            "Number of firing alerts from grafana/rules/alerts.yml, and the share of chunks whose own receive instant "
            "was lost, because one read had several.",
            COUNT,
            Query(or_zero(alerts), "alerts {{alertname}}"),
            Query(f"{merged} / {chunks}", "share of merged chunks"),
            limits=((1, "red"),),
        ),
    ]
