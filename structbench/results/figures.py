"""The figures of each run group with intervals; latencies are of ``MEASURED`` requests, as in the view ``summary``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from structbench.metrics import (
    FAILED,
    GOOD_OF_RUN,
    IS_COVERED,
    IS_WHOLE,
    LATENCIES,
    LIMITS_OF_RUN,
    MEASURED,
    PERCENTILES,
    SCORES,
    Metric,
    n_sql,
    of_kind,
    possibly,
    total_sql,
    without_stream,
)
from structbench.results.failures import Failure, failures_of, together
from structbench.results.groups import RunGroup
from structbench.results.intervals import (
    GROUPS,
    Array,
    GapCounts,
    Latency,
    Rows,
    about,
    bounds,
    gap_counts,
    gap_estimate,
    gap_moments,
    gap_percentile,
    latency_estimates,
    order_estimate,
    params_of,
    rate_estimates,
    values_of,
    why_unknown,
)
from structbench.results.measures import Measured
from structbench.stats import Estimate, gap_percentiles, such_cases, wilson

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
    {", ".join(f"{total_sql(of, sql)} AS {of.name}, {n_sql(of, sql)} AS {of.name}_n" for of, sql in _ADDED.items())},
    {", ".join(f"count(*) FILTER ({MEASURED} AND {of.unknown_sql}) AS no_{of.name}" for of in LATENCIES.values())},
    bool_and({IS_WHOLE}) FILTER (error_kind IS NULL) AS whole,
    bool_or(limited) AS limited, median(client_tokens_per_s) FILTER ({MEASURED}) AS stream_tokens_per_s
FROM requests JOIN line USING (run_id) JOIN limits USING (run_id) GROUP BY line
"""
_RATES = {metric.name: _ADDED[metric] for metric in of_kind("rate")} | {
    f"most_{metric.name}": metric.sql.format(good=possibly(GOOD_OF_RUN))
    for metric in of_kind("rate")
    if "{good}" in metric.sql
}
_COUNTED = ("requests", "completed", "errors", "dropped", "scored", "thinking", "steady", "output_tokens")
_CASES = f"""
WITH {GROUPS}
SELECT line, {", ".join(f"sum({m.sql}) AS {m.name}, count({m.sql}) AS {m.name}_n" for m in SCORES)}
FROM requests JOIN line USING (run_id) GROUP BY line, case_id ORDER BY line, case_id
"""
_OUTCOMES = f"""
WITH {GROUPS}
SELECT line, outcome, {FAILED} AS failed, count(*) AS count
FROM requests JOIN line USING (run_id) WHERE error_kind IS DISTINCT FROM 'cancelled'
GROUP BY ALL ORDER BY line, failed, count DESC, outcome
"""
_KNOWN_GAPS = f"WITH {GROUPS} SELECT line, {', '.join(PERCENTILES)} FROM gap_percentiles JOIN line USING (run_id)"


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
    """Name -> the estimate."""
    such_cases: Mapping[str, Estimate]
    """Name -> the share of right answers as one of such cases, where ``shares`` is about these cases."""
    stream_tokens_per_s: float | None
    outcomes: Sequence[tuple[str, bool, int]]
    """Outcome, whether the request failed, and the count; answers first, most frequent first."""
    failures: Sequence[Failure] = ()
    """How requests failed, most frequent first."""
    whole: bool = False
    """Whether every answer came in one piece, so that there is no first token to tell from the last."""
    asked: Mapping[str, Estimate] = field(default_factory=dict)
    """Name -> a figure that a rule is on and no table has: the mean, another percentile, the similarity."""

    def of(self, figure: Metric) -> Estimate:
        """Return the estimate of a share, a rate, or one of PERCENTILES of a latency."""
        match figure.kind:
            case "latency":
                return next(self.latencies[figure.key][word] for word, p in PERCENTILES.items() if p == figure.p)
            case "rate":
                return self.rates[figure.name]
            case _:
                return self.shares[figure.name]

    def told(self, figure: Metric) -> Estimate:
        """Return the estimate as tables tell it: none of TTFT where every answer came whole."""
        return Estimate(0) if self.whole and figure.base == "ttft" else self.of(figure)

    def judged_by(self, figure: Metric) -> Metric:
        """Return the figure by which a limit on this one is judged: e2e where every answer came whole."""
        return without_stream(figure) if self.whole else figure

    def judged(self, figure: Metric) -> Estimate:
        """Return the estimate by which a limit on this figure is judged."""
        figure = self.judged_by(figure)
        return self.asked[figure.name] if figure.name in self.asked else self.of(figure)

    def has(self, metric: Metric) -> bool:
        """Return whether the metric adds anything here that others do not (``only_where``)."""
        return not metric.only_where or bool(self.counts.get(metric.only_where))


def figures_of(
    reader: Rows, groups: Sequence[RunGroup], gaps: GapCounts | None, rule: Iterable[Metric] = ()
) -> dict[int, Figures]:
    """Return group id -> its figures, with those that a rule is on; without ``gaps``, each group must be one run, whose
    ITL the store knows."""
    params = runs_of(groups)
    counts: dict[int, Mapping[str, Any]] = {group.id: {} for group in groups}
    counts |= {row["line"]: row for row in reader.query(_COUNTS, params)}
    completed = {group: row.get("completed", 0) for group, row in counts.items()}
    latencies: dict[str, dict[int, Latency]] = {
        metric.key: _gap_estimates(reader, params, completed, gaps)
        if metric.counts == "gap"
        else latency_estimates(reader, metric.column, params, PERCENTILES)
        for metric in LATENCIES.values()
    }
    outcomes: dict[int, list[tuple[str, bool, int]]] = {}
    for row in reader.query(_OUTCOMES, params):
        outcomes.setdefault(row["line"], []).append((row["outcome"], row["failed"], row["count"]))
    rates, cases = rate_estimates(reader, params, _RATES), _of_such_cases(reader, params)
    failures = failures_of(reader.query, [run_id for group in groups for run_id in group.run_ids])
    asked = _asked(reader, groups, counts, gaps, [metric for metric in rule if not _is_listed(metric)])
    return {
        group.id: _figures(group, counts[group.id],
                          {name: _or_why(found.get(group.id, {}), name, counts[group.id])
                           for name, found in latencies.items()},
                          rates.get(group.id, {}), cases.get(group.id, {}), outcomes.get(group.id, []),
                          together(failures[run_id] for run_id in group.run_ids), asked[group.id])
        for group in groups
    }  # fmt: skip


def _is_listed(metric: Metric) -> bool:
    """Return whether tables have this figure."""
    return metric.p in PERCENTILES.values() if metric.kind == "latency" else metric.kind != "score"


def _asked(
    reader: Rows, groups: Sequence[RunGroup], counts: Mapping[int, Mapping[str, Any]], gaps: GapCounts | None,
    metrics: Sequence[Metric],
) -> dict[int, dict[str, Estimate]]:  # fmt: skip
    """Return group -> name -> the figures that no table has, each computed as one that tables have."""
    params = runs_of(groups)
    found: dict[int, dict[str, Estimate]] = {group.id: {} for group in groups}
    for metric in {each.name: each for one in metrics for each in (one, without_stream(one))}.values():
        if metric.counts == "gap":
            counted = gap_counts(reader, params) if gaps is None else gaps
            completed = {group: row.get("completed", 0) for group, row in counts.items()}
            for group, (requests, moments) in gap_moments(reader, params, completed).items():
                found[group][metric.name] = gap_estimate(
                    metric, _of_gaps(counted.get(group), metric), requests, moments
                )
        else:
            for group, values in values_of(reader, metric, params):
                found[group][metric.name] = order_estimate(metric, values)
        for group, own in found.items():
            unknown = counts[group].get(f"no_{metric.base}", 0)
            own.setdefault(metric.name, Estimate(0, why=why_unknown(metric, unknown)))
    return found


def _of_gaps(counted: tuple[Array, Array] | None, metric: Metric) -> Measured:
    """Return a percentile, or the mean, of all gaps of a run group, and how many there are."""
    if counted is None:
        return Measured(None, 0)
    gap_us, n = counted
    mean = float((gap_us * n).sum() / n.sum() / 1e6)
    return Measured(mean if metric.p is None else gap_percentile(counted, metric.p), int(n.sum()))


def _or_why(found: Latency, key: str, row: Mapping[str, Any]) -> Latency:
    """Return the percentiles of a latency, or why there are none."""
    if any(estimate.n for estimate in found.values()):
        return found
    (metric,) = (metric for metric in LATENCIES.values() if metric.key == key)
    return dict.fromkeys(PERCENTILES, Estimate(0, why=why_unknown(metric, row.get(f"no_{metric.name}", 0))))


def runs_of(groups: Iterable[RunGroup]) -> dict[str, Any]:
    """Return the query parameters that map each run to its group."""
    return params_of((group.id, group.run_ids) for group in groups)


def _of_such_cases(reader: Rows, params: Mapping[str, Any]) -> dict[int, dict[str, Estimate]]:
    found = reader.columns(_CASES, params)
    return {
        int(group): {
            metric.name: such_cases(found[metric.name][asked].astype(float), found[f"{metric.name}_n"][asked])
            for metric in SCORES
            if (asked := (found["line"] == group) & (found[f"{metric.name}_n"] > 0)).any()
        }
        for group in dict.fromkeys(found["line"])
    }


def _gap_estimates(
    reader: Rows, params: Mapping[str, Any], completed: Mapping[int, int], gaps: GapCounts | None
) -> dict[int, Latency]:
    """Return the percentiles of all gaps, with intervals from a sample of requests."""
    known: Mapping[int, list[float | None]] = (
        {row["line"]: [row[name] for name in PERCENTILES] for row in reader.query(_KNOWN_GAPS, params)}
        if gaps is None
        else {group: [gap_percentile(counted, p) for p in PERCENTILES.values()] for group, counted in gaps.items()}
    )
    return {
        group: dict(zip(PERCENTILES, gap_percentiles(
            moments, [*PERCENTILES.values()], known.get(group), requests), strict=True))
        for group, (requests, moments) in gap_moments(reader, params, completed).items()
    }  # fmt: skip


def _figures(
    group: RunGroup,
    row: Mapping[str, Any],
    latencies: Mapping[str, Latency],
    rates: Mapping[str, Estimate],
    cases: Mapping[str, Estimate],
    outcomes: Sequence[tuple[str, bool, int]],
    failures: Sequence[Failure],
    asked: Mapping[str, Estimate],
) -> Figures:
    """Return the figures of one group; ``row`` is empty if it has no requests."""
    counts, seconds = {name: row.get(name, 0) for name in _COUNTED}, group.rate_s

    def mean(name: str) -> Estimate:
        total, n = row.get(name), row.get(f"{name}_n", 0)
        return wilson(0 if total is None else max(0, min(total, n)), n)

    def rate(metric: Metric) -> Estimate:
        scored = metric.counts == "scored answer"
        n = row.get(f"{metric.name}_n", 0) if scored else counts["completed"]
        total = row.get(metric.name) if metric.all_of else row.get(metric.name) or 0
        known = seconds and (n or not scored) and (metric.name != "goodput" or row.get("limited"))
        if known and total is None and f"most_{metric.name}" in rates:
            return bounds(rates[metric.name], rates[f"most_{metric.name}"], n)
        value = total / seconds if known and seconds and total is not None else None
        return about(rates.get(metric.name, Estimate(0)), value, n)

    return Figures(
        counts=counts, latencies=latencies, shares={metric.name: mean(metric.name) for metric in of_kind("share")},
        rates={metric.name: rate(metric) for metric in of_kind("rate")}, such_cases=cases,
        stream_tokens_per_s=row.get("stream_tokens_per_s"), outcomes=outcomes, failures=failures,
        whole=bool(row.get("whole")), asked=asked,
    )  # fmt: skip
