"""PromQL of the dashboards: selectors with the dashboards' variables, rates, percentiles, shares. Pure text.

Invariant: every selector carries all four variables, so that a choice at the top of a dashboard holds for each panel.
Readings: ``rate`` is for amounts per second, ``recent`` for what is a ratio anyway (a minute, so that a slow load has
something to show), ``last`` for a whole run, the newest of its cell in the time range.
"""

from __future__ import annotations

from loadgen.telemetry import instruments as of
from loadgen.telemetry.instruments import ERROR_TYPE, prometheus
from structbench.metrics import METRICS, Metric, of_kind

MODEL, SUITE, LOAD, LABEL = "gen_ai_request_model", "structbench_suite", "structbench_load", "structbench_label"
VARIABLES = {"model": MODEL, "suite": SUITE, "load": LOAD, "label": LABEL}
"""Variable of the dashboards -> label of the series."""
CELL = tuple(VARIABLES.values())
CELL_LEGEND = " ".join(f"{{{{{label}}}}}" for label in CELL)
CHOICE = ", ".join(f'{label}=~"${variable}"' for variable, label in VARIABLES.items())

REQUESTS = prometheus(of.REQUESTS)
IN_FLIGHT = prometheus(of.IN_FLIGHT)
PLANNED = prometheus(of.PLANNED)
VERDICT = prometheus(of.VERDICT)
TOKENS = prometheus(of.TOKENS)
STREAM_RATE = prometheus(of.TOKEN_RATE)
LATENCIES = [metric for metric in of_kind("latency") if metric.instrument is not None]
"""Those that a load shows while it runs."""
CORRECT = 'structbench_outcome="correct"'
FAILED = 'error_type!=""'
COMPLETED = 'error_type=""'
INPUT, OUTPUT = 'gen_ai_token_type="input"', 'gen_ai_token_type="output"'


def shown_as(metric: str) -> str:
    """The histogram of a metric of the table."""
    instrument = METRICS[metric].instrument
    assert instrument is not None, metric
    return instrument.prometheus


def recorded(name: str, percent: int) -> str:
    """The series that grafana/rules records: a percentile of each cell over the last minute."""
    return f"cell:{name}_seconds:p{percent}_1m"


def completed(metric: Metric) -> str:
    """The choice of completed requests, where failed ones are observed too."""
    return COMPLETED if metric.instrument is not None and ERROR_TYPE in metric.instrument.attributes else ""


TTFT, ITL, E2E = (shown_as(name) for name in ("ttft", "itl", "e2e"))


def series(name: str, more: str = "") -> str:
    """The metric's series of the chosen cells."""
    return f"{name}{{{CHOICE}{', ' if more else ''}{more}}}"


def rate(name: str, more: str = "") -> str:
    """Its growth per second, over the interval that fits the zoom."""
    return f"rate({series(name, more)}[$__rate_interval])"


def recent(name: str, more: str = "") -> str:
    """Its growth in the last minute, for ratios and percentiles. As a rate it would be wrong for shorter cells."""
    return f"rate({series(name, more)}[1m])"


def last(name: str, more: str = "") -> str:
    """Its last value in the time range: a counter's is the whole of its run."""
    return f"last_over_time({series(name, more)}[$__range])"


def total(expr: str, by: tuple[str, ...] = ()) -> str:
    """The sum, in one figure or by labels."""
    labels = ", ".join(by)
    return f"sum by ({labels}) ({expr})" if labels else f"sum({expr})"


def quantile(q: float, buckets: str, by: tuple[str, ...] = ()) -> str:
    """A percentile interpolated between bucket bounds."""
    return f"histogram_quantile({q:g}, {total(buckets, ('le', *by))})"


def mean(histogram: str, by: tuple[str, ...] = (), *, whole: bool = False) -> str:
    """Sum / count: of the last minute, or of the whole run. Exact."""
    read = last if whole else recent
    return f"{total(read(f'{histogram}_sum'), by)} / {total(read(f'{histogram}_count'), by)}"


def or_zero(expr: str, like: str | None = None) -> str:
    """0 where the series do not exist because nothing of the kind happened; with the labels of ``like``."""
    return f"({expr}) or vector(0)" if like is None else f"(({expr}) or 0 * ({like}))"


def error_share(by: tuple[str, ...]) -> str:
    """Failed requests / all requests of the run."""
    everything = total(last(REQUESTS), by)
    return f"{or_zero(total(last(REQUESTS, FAILED), by), everything)} / {everything}"


def per_busy_second(counter: str, by: tuple[str, ...], more: str = "") -> str:
    """What a run counted / the whole seconds in which it had requests in flight; 0 where it counted nothing."""
    seconds = total(f"count_over_time(({total(series(IN_FLIGHT), CELL)} > 0)[$__range:1s])", by)
    return f"{or_zero(total(last(counter, more), by), seconds)} / {seconds}"


def with_level(expr: str) -> str:
    """With labels ``level``, the number in the load's name, and ``cell``, its model and suite: for bars by load."""
    level = f'label_replace({expr}, "level", "$1", "{LOAD}", "[a-z]+=([0-9.]+).*")'
    return f'label_join({level}, "cell", " ", "{MODEL}", "{SUITE}")'
