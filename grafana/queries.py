"""PromQL of the dashboards: selectors with the dashboards' variables, rates, percentiles, shares. Pure text.

Every selector has all four variables, so that a choice at the top of a dashboard applies to each panel. Use ``rate``
for amounts per second, ``recent`` for ratios (over a minute, so that a slow load has something to show), and ``last``
for a whole run, the newest of its cell in the time range.
"""

from __future__ import annotations

from loadgen.telemetry import instruments as of
from loadgen.telemetry.instruments import ERROR_TYPE, prometheus
from structbench.metrics import METRICS, Metric, of_kind

MODEL, SUITE, LOAD, LABEL = "gen_ai_request_model", "structbench_suite", "structbench_load", "structbench_label"
VARIABLES = {"model": MODEL, "suite": SUITE, "load": LOAD, "label": LABEL}
"""Dashboard variable -> label of the series."""
CELL = tuple(VARIABLES.values())
CELL_LEGEND = " ".join(f"{{{{{label}}}}}" for label in CELL)
SHOWN = "cells"
"""Dashboard variable of *Live load*: of how many cells panels are, those first that had requests in flight last."""
CHOICE = ", ".join(f'{label}=~"${variable}"' for variable, label in VARIABLES.items())

REQUESTS = prometheus(of.REQUESTS)
IN_FLIGHT = prometheus(of.IN_FLIGHT)
PLANNED = prometheus(of.PLANNED)
VERDICT = prometheus(of.VERDICT)
TOKENS = prometheus(of.TOKENS)
STREAM_RATE = prometheus(of.TOKEN_RATE)
LATENCIES = [metric for metric in of_kind("latency") if metric.instrument is not None]
"""Latencies that a load shows while it runs."""
CORRECT = 'structbench_outcome="correct"'
FAILED = 'error_type!=""'
COMPLETED = 'error_type=""'
INPUT, OUTPUT = 'gen_ai_token_type="input"', 'gen_ai_token_type="output"'
_COUNTED = f"{OUTPUT}, {COMPLETED}"


def shown_as(metric: str) -> str:
    """Return the Prometheus name of a metric's histogram."""
    instrument = METRICS[metric].instrument
    assert instrument is not None, metric
    return instrument.prometheus


def recorded(name: str, percent: int) -> str:
    """Return the series recorded by grafana/rules: a percentile of each cell over the last minute."""
    return f"cell:{name}_seconds:p{percent}_1m"


def completed(metric: Metric) -> str:
    """Return the matcher for completed requests, if the metric observes failed ones too."""
    return COMPLETED if metric.instrument is not None and ERROR_TYPE in metric.instrument.attributes else ""


TTFT, ITL, E2E = (shown_as(name) for name in ("ttft", "itl", "e2e"))


def series(name: str, more: str = "") -> str:
    """Return PromQL for the metric's series of the chosen cells."""
    return f"{name}{{{CHOICE}{', ' if more else ''}{more}}}"


def newest(expr: str) -> str:
    """Return PromQL for the expression's series of the running cell, or of as many of the last ones as are chosen."""
    at_work = f"max_over_time(timestamp({series(IN_FLIGHT)} > 0)[$__range:2s] @ end())"
    return f"({expr}) and on ({', '.join(CELL)}) topk(${SHOWN}, {at_work})"


def rate(name: str, more: str = "") -> str:
    """Return PromQL for a counter's rate over the interval that fits the zoom."""
    return f"rate({series(name, more)}[$__rate_interval])"


def recent(name: str, more: str = "") -> str:
    """Return PromQL for a rate over the last minute: only for ratios and percentiles, since cells may be shorter."""
    return f"rate({series(name, more)}[1m])"


def last(name: str, more: str = "") -> str:
    """Return PromQL for the last value in the time range: for a counter, the total of its run."""
    return f"last_over_time({series(name, more)}[$__range])"


def total(expr: str, by: tuple[str, ...] = ()) -> str:
    """Return PromQL for the sum, in total or by labels."""
    labels = ", ".join(by)
    return f"sum by ({labels}) ({expr})" if labels else f"sum({expr})"


def quantile(q: float, buckets: str, by: tuple[str, ...] = ()) -> str:
    """Return PromQL for a percentile, interpolated between bucket bounds."""
    return f"histogram_quantile({q:g}, {total(buckets, ('le', *by))})"


def mean(histogram: str, by: tuple[str, ...] = (), *, whole: bool = False) -> str:
    """Return PromQL for sum / count, over the last minute or the whole run. Exact."""
    read = last if whole else recent
    return f"{total(read(f'{histogram}_sum'), by)} / {total(read(f'{histogram}_count'), by)}"


def or_zero(expr: str, like: str | None = None) -> str:
    """Return PromQL that gives 0, with the labels of ``like``, if the series do not exist since nothing was counted."""
    return f"({expr}) or vector(0)" if like is None else f"(({expr}) or 0 * ({like}))"


def error_share(by: tuple[str, ...]) -> str:
    """Return PromQL for failed requests / all requests of the run."""
    everything = total(last(REQUESTS), by)
    return f"{or_zero(total(last(REQUESTS, FAILED), by), everything)} / {everything}"


def per_busy_second(counter: str, by: tuple[str, ...], more: str = "") -> str:
    """Return PromQL for a run's count / whole seconds with requests in flight; 0 if it counted nothing."""
    seconds = total(f"count_over_time(({total(series(IN_FLIGHT), CELL)} > 0)[$__range:1s])", by)
    return f"{or_zero(total(last(counter, more), by), seconds)} / {seconds}"


def tokens_per_s() -> str:
    """Return PromQL for each cell's output tokens per second now; absent where an answer has no count."""
    tokens = total(rate(f"{TOKENS}_sum", OUTPUT), CELL)
    counted, completed = (
        total(read, CELL) for read in (series(f"{TOKENS}_count", _COUNTED), series(f"{E2E}_count", COMPLETED))
    )
    return f"{tokens} and {counted} >= {completed}"


def tokens_per_busy_second(by: tuple[str, ...]) -> str:
    """Return PromQL for a run's output tokens / busy seconds; absent where an answer has no count."""
    counted, completed = total(last(f"{TOKENS}_count", _COUNTED), by), total(last(f"{E2E}_count", COMPLETED), by)
    return f"{per_busy_second(f'{TOKENS}_sum', by, OUTPUT)} and {counted} >= {completed}"


def server_speed(tokens: str, duration: str) -> str:
    """Return PromQL for tokens / the server's duration by model, of cells whose answers all have both."""
    counted = total(series(f"{TOKENS}_count", f"{tokens}, {COMPLETED}"), CELL)
    both = f"and on ({', '.join(CELL)}) ({counted} == {total(series(f'{duration}_count'), CELL)})"
    made = total(f"{recent(f'{TOKENS}_sum', tokens)} {both}", (MODEL,))
    took = total(f"{recent(f'{duration}_sum')} {both}", (MODEL,))
    return f"{made} / {took}"


def with_level(expr: str) -> str:
    """Add the labels ``level`` (the number in the load's name) and ``cell`` (model and suite), for bars by load."""
    level = f'label_replace({expr}, "level", "$1", "{LOAD}", "[a-z]+=([0-9.]+).*")'
    return f'label_join({level}, "cell", " ", "{MODEL}", "{SUITE}")'
