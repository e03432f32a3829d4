"""The figures that expressions name, of one run: SQL on its rows.

Invariant: the formulas are those of docs/metrics.md and of the view ``summary``; what cannot be computed is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from structbench.gates.expressions import LATENCIES, MAY_BE_ABSENT, Metric

Query = Callable[[str, Sequence[Any]], list[dict[str, Any]]]

_COMPLETED = "FILTER (WHERE error_kind IS NULL)"
_UNSCORED = "count(*) FILTER (WHERE outcome = 'unscored')"
_SHARES: Mapping[str, tuple[str, str]] = {
    "json_valid": ("avg(json_valid::BIGINT)", "count(json_valid)"),
    "schema_valid": ("avg(schema_valid::BIGINT)", "count(schema_valid)"),
    "tool_calls_right": ("avg(tool_call_accuracy)", "count(tool_call_accuracy)"),
    "accuracy": ("avg(accuracy_score)", "count(accuracy_score)"),
    "correct": (
        "count(*) FILTER (WHERE outcome = 'correct') / nullif(count(accuracy_score), 0)",
        "count(accuracy_score)",
    ),
    "error_rate": ("count(error_kind) / nullif(count(*), 0)", "count(*)"),
}
_GAPS = """
    FROM (
        SELECT unnest(chunk_offsets_us[1:-2]) AS earlier, unnest(chunk_offsets_us[2:]) AS later
        FROM requests WHERE run_id = $1 AND error_kind IS NULL
    )
"""


class Measured(NamedTuple):
    """A figure, and of how many requests, answers or gaps it is; without a figure, how many should have had one."""

    value: float | None
    n: int


def meets(limits: Mapping[str, float]) -> str:
    """SQL: whether a request completed within every limit (``expressions.parse_limits``)."""
    each = [
        f"coalesce({column} <= {limit!r}, {'true' if column in MAY_BE_ABSENT else 'false'})"
        for column, limit in limits.items()
    ]
    return " AND ".join(["error_kind IS NULL", *each])


def measured(
    query: Query, run_id: str, metrics: Iterable[Metric], limits: Mapping[str, float] | None
) -> dict[str, Measured]:
    """Metric name -> its figure in this run; ``limits``: those of goodput, None: none were set."""
    wanted = {metric.name: metric for metric in metrics}
    found: dict[str, Measured] = {}
    plain = [metric for metric in wanted.values() if metric.base != "itl"]
    if plain:
        columns = [f"{sql} AS v{i}, {n} AS n{i}" for i, m in enumerate(plain) for sql, n in [_sql(m, limits)]]
        durations = "CROSS JOIN (SELECT max(duration_s) AS duration_s FROM run_durations WHERE run_id = $1)"
        (row,) = query(f"SELECT {', '.join(columns)} FROM requests {durations} WHERE run_id = $1", [run_id])
        found = {metric.name: Measured(row[f"v{i}"], row[f"n{i}"]) for i, metric in enumerate(plain)}
    for metric in wanted.values():
        if metric.base == "itl":
            found[metric.name] = _gaps(query, run_id, metric)
    return found


def _sql(metric: Metric, limits: Mapping[str, float] | None) -> tuple[str, str]:
    """A value over the rows of one run, and its n."""
    if metric.kind == "share":
        value, n = _SHARES[metric.name]
        return value, f"coalesce(nullif({n}, 0), {_UNSCORED})"
    if metric.kind == "latency":
        column = LATENCIES[metric.base]
        value = f"avg({column})" if metric.p is None else f"quantile_cont({column}, {metric.p!r})"
        return f"{value} {_COMPLETED}", f"count({column}) {_COMPLETED}"
    per_s, completed = "/ nullif(any_value(duration_s), 0)", f"count(*) {_COMPLETED}"
    if metric.name == "requests_per_s":
        return f"{completed} {per_s}", completed
    if metric.name == "tokens_per_s":
        return f"sum(output_tokens) {_COMPLETED} {per_s}", completed
    if metric.name == "correct_goodput":
        good = f"count(*) FILTER (WHERE outcome = 'correct' AND {meets(limits or {})})"
        n = f"coalesce(nullif(count(accuracy_score), 0), {_UNSCORED})"
        return f"CASE WHEN count(accuracy_score) > 0 THEN {good} {per_s} END", n
    return f"count(*) FILTER (WHERE {meets(limits or {})}) {per_s}" if limits else "NULL", "count(*)"


def _gaps(query: Query, run_id: str, metric: Metric) -> Measured:
    """ITL, over all gaps of the run together; a histogram, since they are too many to sort."""
    if metric.p is None:
        (row,) = query(f"SELECT avg(later - earlier) / 1e6 AS value, count(*) AS n {_GAPS}", [run_id])
        return Measured(row["value"], row["n"])
    counted = f"SELECT later - earlier AS gap_us, count(*) AS n {_GAPS} GROUP BY gap_us"
    place = f"{metric.p!r}::DOUBLE * (max(total) - 1)"
    sql = f"""
        SELECT max(total)::BIGINT AS n, {place} - floor({place}) AS part,
            min(gap_us) FILTER (WHERE upto > (SELECT floor({place}) FROM ranked)) AS low,
            min(gap_us) FILTER (WHERE upto > (SELECT ceil({place}) FROM ranked)) AS high
        FROM ranked
    """
    ranked = f"SELECT gap_us, sum(n) OVER (ORDER BY gap_us) AS upto, sum(n) OVER () AS total FROM ({counted})"
    (row,) = query(f"WITH ranked AS ({ranked}) {sql}", [run_id])
    if row["low"] is None:
        return Measured(None, 0)
    return Measured((row["low"] + (row["high"] - row["low"]) * row["part"]) / 1e6, row["n"])
