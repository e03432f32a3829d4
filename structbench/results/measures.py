"""The figures that expressions name, computed for one run by SQL; they equal those of the view ``summary``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from structbench.metrics import Metric, gaps_sql, good_sql, n_sql, total_sql
from structbench.store.views import gap_percentiles_of

Query = Callable[[str, Sequence[Any]], list[dict[str, Any]]]

_UNSCORED = "count(*) FILTER (WHERE outcome = 'unscored')"
_GAPS = gaps_sql("(SELECT * FROM requests WHERE run_id = $1)", "run_id")


class Measured(NamedTuple):
    """A figure and the number of requests, answers or gaps behind it; without a figure, how many should have one."""

    value: float | None
    n: int


def meets(limits: Mapping[str, float] | None) -> str:
    """Return SQL for whether a request completed within every limit (of ``expressions.parse_limits``)."""
    return good_sql({column: repr(limit) for column, limit in (limits or {}).items()})


def measured(
    query: Query, run_id: str, metrics: Iterable[Metric], limits: Mapping[str, float] | None
) -> dict[str, Measured]:
    """Return metric name -> its figure in this run; ``limits`` are those of goodput, None if none were set."""
    wanted = {metric.name: metric for metric in metrics}
    found: dict[str, Measured] = {}
    plain = [metric for metric in wanted.values() if metric.counts != "gap"]
    if plain:
        columns = [f"{sql} AS v{i}, {n} AS n{i}" for i, m in enumerate(plain) for sql, n in [_sql(m, limits)]]
        durations = "CROSS JOIN (SELECT max(rate_s) AS rate_s FROM run_durations WHERE run_id = $1)"
        (row,) = query(f"SELECT {', '.join(columns)} FROM requests {durations} WHERE run_id = $1", [run_id])
        found = {metric.name: Measured(row[f"v{i}"], row[f"n{i}"]) for i, metric in enumerate(plain)}
    for metric in wanted.values():
        if metric.counts == "gap":
            found[metric.name] = _gaps(query, run_id, metric)
    return found


def _sql(metric: Metric, limits: Mapping[str, float] | None) -> tuple[str, str]:
    """Return SQL for the metric over the rows of one run, and for its n."""
    each = metric.sql.format(good=meets(limits))
    n = n_sql(metric, each)
    if metric.counts == "scored answer":
        n = f"coalesce(nullif({n}, 0), {_UNSCORED})"
    if metric.name == "goodput" and not limits:
        return "NULL", n
    if metric.kind == "rate":
        return f"{total_sql(metric, each)} / nullif(any_value(rate_s), 0)", n
    return f"avg({each})" if metric.p is None else f"quantile_cont({each}, {metric.p!r})", n


def _gaps(query: Query, run_id: str, metric: Metric) -> Measured:
    """Return ITL over all gaps of the run together."""
    if metric.p is None:
        sql = f"SELECT sum(gap_us * n) / sum(n) / 1e6 AS value, sum(n)::BIGINT AS gaps FROM ({_GAPS})"
    else:
        sql = gap_percentiles_of("SELECT $1 AS run_id", {"value": metric.p})
    found = query(sql, [run_id])
    value = found[0]["value"] if found else None
    return Measured(value, 0 if value is None else found[0]["gaps"])
