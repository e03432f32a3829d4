"""The figures of each run group with intervals; latencies are of ``MEASURED`` requests, as in the view ``summary``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from structbench.metrics import (
    FAILED,
    GOOD_OF_RUN,
    IS_COVERED,
    IS_GATHERED,
    LATENCIES,
    LIMITS_OF_RUN,
    MEASURED,
    METRICS,
    PERCENTILES,
    Metric,
    gaps_sql,
    of_kind,
    total_sql,
)  # fmt: skip
from structbench.results.groups import RunGroup
from structbench.stats import (
    Estimate,
    gap_percentiles,
    percentile_estimate,
    percentile_of_counts,
    ranks_around,
    rate_per_s,
    wilson,
)
from structbench.store import Reader

GAP_REQUESTS = 300
"""About the maximum number of requests per run group, spread evenly, that ITL's intervals are made from."""

# SQL and JSON call a run group a line.
GROUPS = "line AS (SELECT unnest($run_ids::VARCHAR[]) AS run_id, unnest($lines::BIGINT[]) AS line)"
SAMPLED = "sampled AS (SELECT unnest($sampled::BIGINT[]) AS line, unnest($share::DOUBLE[]) AS share)"
# Multiples of the golden ratio are spread evenly: an even sample over the run, the same each time.
IN_SAMPLE = "(request_index * 2654435761) % 4294967296 < share * 4294967296"
"""SQL: whether a request is in the sample that ``sample_of`` asks for."""
_ADDED = {metric: metric.sql.format(good=GOOD_OF_RUN) for metric in of_kind("rate", "share")}
_COUNTS = f"""
WITH {GROUPS}, limits AS (SELECT run_id, goodput_limits IS NOT NULL AS limited, {LIMITS_OF_RUN} FROM runs)
SELECT line, count(*) AS requests, count(*) FILTER ({FAILED}) AS errors,
    count(*) FILTER (error_kind IS NULL) AS completed, count(*) FILTER (error_kind = 'dropped') AS dropped,
    count(accuracy_score) AS scored,
    count(first_thinking_s) FILTER (error_kind IS NULL) AS thinking,
    CASE WHEN bool_or(steady) THEN count(*) FILTER (steady IS NOT FALSE) ELSE 0 END AS steady,
    CASE WHEN bool_and({IS_COVERED}) FILTER (error_kind IS NULL)
        THEN (sum(output_tokens) FILTER (error_kind IS NULL))::BIGINT END AS output_tokens,
    {", ".join(f"{total_sql(of, sql)} AS {of.name}, count({sql}) AS {of.name}_n" for of, sql in _ADDED.items())},
    bool_or(limited) AS limited, median(client_tokens_per_s) FILTER ({MEASURED}) AS stream_tokens_per_s
FROM requests JOIN line USING (run_id) JOIN limits USING (run_id) GROUP BY line
"""
_COUNTED = ("requests", "completed", "errors", "dropped", "scored", "thinking", "steady", "output_tokens")
_LATENCY = f"""
WITH {GROUPS} SELECT line AS key, {{column}} AS value FROM requests JOIN line USING (run_id) WHERE {MEASURED}
"""
_COUNT = "WITH source AS ({source}) SELECT key, count(value) AS n FROM source GROUP BY key ORDER BY key"
_AT_RANKS = """
WITH source AS ({source}), wanted AS (SELECT unnest($keys::BIGINT[]) AS key, unnest($ranks::BIGINT[][]) AS ranks)
SELECT key, list_select(list_sort(list(value)), any_value(ranks)) AS found
FROM source JOIN wanted USING (key) WHERE value IS NOT NULL GROUP BY key
"""
_OUTCOMES = f"""
WITH {GROUPS}
SELECT line, outcome, {FAILED} AS failed, count(*) AS count
FROM requests JOIN line USING (run_id) GROUP BY ALL ORDER BY line, failed, count DESC, outcome
"""
_GAPS = f"WITH {GROUPS} {gaps_sql('requests JOIN line USING (run_id)', 'line')} ORDER BY line, gap_us"
_KNOWN_GAPS = f"WITH {GROUPS} SELECT line, {', '.join(PERCENTILES)} FROM gap_percentiles JOIN line USING (run_id)"
_SAMPLE = f"""
WITH {GROUPS}, {SAMPLED}
SELECT line, chunk_offsets_us AS offsets_us FROM requests JOIN line USING (run_id) JOIN sampled USING (line)
WHERE {MEASURED} AND NOT {IS_GATHERED} AND len(chunk_offsets_us) > 1 AND {IN_SAMPLE}
"""


Latency = dict[str, Estimate]
"""p50, p90, p95, p99 -> the estimate."""
Array = np.ndarray[Any, Any]
GapCounts = Mapping[int, tuple[Array, Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures measured for one run group."""

    counts: Mapping[str, Any]
    """requests, completed, errors, dropped, scored, thinking (answers that had some), steady (0: figures are of all),
    output_tokens (None: unknown)."""
    latencies: Mapping[str, Latency]
    """``Metric.key`` -> p50, p90, p95, p99."""
    shares: Mapping[str, Estimate]
    """Name -> the estimate, over scored answers; the error rate over requests."""
    rates: Mapping[str, Estimate]
    """Name -> the estimate; only correct goodput has an interval."""
    stream_tokens_per_s: float | None
    outcomes: Sequence[tuple[str, bool, int]]
    """Outcome, whether the request failed, and the count; answers first, most frequent first."""

    def of(self, figure: Metric) -> Estimate:
        """Return the estimate of a share, a rate, or one of PERCENTILES of a latency."""
        match figure.kind:
            case "latency":
                return next(self.latencies[figure.key][word] for word, p in PERCENTILES.items() if p == figure.p)
            case "rate":
                return self.rates[figure.name]
            case _:
                return self.shares[figure.name]

    def has(self, metric: Metric) -> bool:
        """Return whether the metric adds anything here that others do not (``only_where``)."""
        return not metric.only_where or bool(self.counts.get(metric.only_where))


def params_of(groups: Iterable[RunGroup]) -> dict[str, Any]:
    """Return the query parameters that map each run to its group."""
    pairs = [(run_id, group.id) for group in groups for run_id in group.run_ids]
    return {"run_ids": [run_id for run_id, _ in pairs], "lines": [group for _, group in pairs]}


def sample_of(counts: Mapping[int, int], most: int) -> dict[str, Any]:
    """Return the query parameters for a sample of about ``most`` requests per group, out of ``counts``."""
    return {"sampled": [*counts], "share": [min(1.0, most / n) if n else 1.0 for n in counts.values()]}


def figures_of(reader: Reader, groups: Sequence[RunGroup], gaps: GapCounts | None) -> dict[int, Figures]:
    """Return group id -> its figures; without ``gaps``, each group must be one run, whose ITL the store knows."""
    params = params_of(groups)
    counts: dict[int, Mapping[str, Any]] = {group.id: {} for group in groups}
    counts |= {row["line"]: row for row in reader.query(_COUNTS, params)}
    completed = {group: row.get("completed", 0) for group, row in counts.items()}
    latencies: dict[str, dict[int, Latency]] = {
        metric.key: _gap_estimates(reader, params, completed, gaps)
        if metric.counts == "gap"
        else order_estimates(reader, _LATENCY.format(column=metric.column), params, PERCENTILES)
        for metric in LATENCIES.values()
    }
    outcomes: dict[int, list[tuple[str, bool, int]]] = {}
    for row in reader.query(_OUTCOMES, params):
        outcomes.setdefault(row["line"], []).append((row["outcome"], row["failed"], row["count"]))
    none = {name: Estimate(0) for name in PERCENTILES}
    return {
        group.id: _figures(group, counts[group.id],
                          {name: found.get(group.id, none) for name, found in latencies.items()},
                          outcomes.get(group.id, []))
        for group in groups
    }  # fmt: skip


def order_estimates(
    reader: Reader, source: str, params: Mapping[str, Any], percentiles: Mapping[str, float]
) -> dict[int, Latency]:
    """Return key -> percentiles with intervals of independent values; ``source`` selects ``key`` (int), ``value``."""
    counts = {row["key"]: row["n"] for row in reader.query(_COUNT.format(source=source), params)}
    ranks = {key: {name: ranks_around(n, p) for name, p in percentiles.items()} for key, n in counts.items()}
    wanted = {key: [rank for each in known.values() for rank in each or ()] for key, known in ranks.items()}
    params = {**params, "keys": [*wanted], "ranks": [*wanted.values()]}
    found = {row["key"]: iter(row["found"]) for row in reader.query(_AT_RANKS.format(source=source), params)}

    def estimate(key: int, name: str) -> Estimate:
        known = ranks[key][name]
        values = None if known is None else [next(found[key]) for _ in known]
        return percentile_estimate(counts[key], percentiles[name], values)

    return {key: {name: estimate(key, name) for name in percentiles} for key in counts}


def gap_counts(reader: Reader, groups: Sequence[RunGroup]) -> GapCounts:
    """Return for each run group every gap between chunks, in µs, ascending, and how often it occurs."""
    columns = reader.columns(_GAPS, params_of(groups))
    of = columns["line"]
    return {int(group): (columns["gap_us"][of == group], columns["n"][of == group]) for group in dict.fromkeys(of)}


def _gap_estimates(
    reader: Reader, params: Mapping[str, Any], completed: Mapping[int, int], gaps: GapCounts | None
) -> dict[int, Latency]:
    """Return the percentiles of all gaps, with intervals from a sample of requests."""
    known: Mapping[int, list[float | None]] = (
        {row["line"]: [row[name] for name in PERCENTILES] for row in reader.query(_KNOWN_GAPS, params)}
        if gaps is None
        else {group: [gap_percentile(counted, p) for p in PERCENTILES.values()] for group, counted in gaps.items()}
    )
    drawn: dict[int, list[Array]] = {group: [] for group in completed}
    for row in reader.query(_SAMPLE, {**params, **sample_of(completed, GAP_REQUESTS)}):
        drawn[row["line"]].append(np.diff(row["offsets_us"]) / 1e6)
    return {
        group: dict(zip(PERCENTILES, gap_percentiles(sample, [*PERCENTILES.values()], known.get(group)), strict=True))
        for group, sample in drawn.items()
    }


def gap_percentile(counted: tuple[Array, Array], p: float) -> float | None:
    """Return the percentile of all gaps of a run group, in seconds."""
    return percentile_of_counts(counted[0] / 1e6, counted[1], p)


def _figures(
    group: RunGroup, row: Mapping[str, Any], latencies: Mapping[str, Latency], outcomes: Sequence[tuple[str, bool, int]]
) -> Figures:
    """Return the figures of one group; ``row`` is empty if it has no requests."""
    counts, seconds = {name: row.get(name, 0) for name in _COUNTED}, group.rate_s

    def mean(name: str) -> Estimate:
        total, n = row.get(name), row.get(f"{name}_n", 0)
        return wilson(0 if total is None else min(total, n), n)

    def rate(name: str) -> Estimate:
        if METRICS[name].counts == "scored answer":
            return rate_per_s(mean(name), seconds)
        total = row.get(name) if METRICS[name].of_all else row.get(name) or 0
        known = name != "goodput" or row.get("limited")
        value = total / seconds if known and seconds and total is not None else None
        return Estimate(counts["completed"], value, value, value)

    return Figures(
        counts=counts, latencies=latencies, shares={metric.name: mean(metric.name) for metric in of_kind("share")},
        rates={metric.name: rate(metric.name) for metric in of_kind("rate")},
        stream_tokens_per_s=row.get("stream_tokens_per_s"), outcomes=outcomes,
    )  # fmt: skip
