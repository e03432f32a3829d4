"""The figures of run groups as estimates, from rows in the order they were sent, for ``figures`` and ``gates``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from structbench.formatting import plural
from structbench.metrics import IS_GATHERED, LIMITS_OF_RUN, MEASURED, Metric, gaps_sql, good_sql, possibly
from structbench.results.measures import Measured, measured
from structbench.stats import (
    CONFIDENCE,
    MAX_STRETCHES,
    MIN_STRETCHES,
    VALUES_A_STRETCH,
    Estimate,
    gap_percentiles,
    gaps_by_moment,
    mean_estimate,
    percentile_estimate,
    percentile_estimates,
    percentile_of_counts,
    ratio_estimate,
    wilson,
)

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"
Columns: TypeAlias = Mapping[str, Array]
Latency = dict[str, Estimate]
"""p50, p90, p95, p99 -> the estimate."""
GapCounts = Mapping[int, tuple[Array, Array]]
GAP_REQUESTS = 300
"""About the maximum number of requests per run group, spread evenly, that ITL's intervals are made from."""

# SQL and JSON call a run group a line; ``run`` is the place of a run in its group.
GROUPS = (
    "line AS (SELECT unnest($run_ids::VARCHAR[]) AS run_id, unnest($lines::BIGINT[]) AS line, "
    "unnest(range(len($run_ids))) AS run)"
)
SAMPLED = "sampled AS (SELECT unnest($sampled::BIGINT[]) AS line, unnest($share::DOUBLE[]) AS share)"
# Multiples of the golden ratio are spread evenly: an even sample over the run, the same each time.
IN_SAMPLE = "(request_index * 2654435761) % 4294967296 < share * 4294967296"
"""SQL: whether a request is in the sample that ``sample_of`` asks for."""
END_S = """
    (end_ns - coalesce(steady_from_ns, min(coalesce(due_ns, sent_ns)) OVER (PARTITION BY run_id, segment))) / 1e9
"""
"""SQL: when a request ended, in seconds since its segment, or the steady part of it, began."""
LASTED = """
lasted AS (
    SELECT run_id, segment, CASE
        WHEN count(steady_from_ns) OVER (PARTITION BY run_id) > 0
            THEN coalesce((steady_to_ns - steady_from_ns) / 1e9, 0)
        WHEN status IS DISTINCT FROM 'interrupted' THEN duration_s END AS duration_s
    FROM segments
)
"""
"""SQL: how long each segment, or the steady part of it, lasted; NULL where only its rows can tell."""
_LATENCY = f"""
WITH {GROUPS} SELECT line AS key, run, request_index, {{column}} AS value
FROM requests JOIN line USING (run_id) WHERE {MEASURED}
"""
_SCORE = f"""
WITH {GROUPS} SELECT line AS key, run, request_index, {{column}} AS value FROM requests JOIN line USING (run_id)
"""
_IN_ORDER = "SELECT key, value FROM ({source}) WHERE value IS NOT NULL ORDER BY key, run, request_index"
_SAMPLE = f"""
WITH {GROUPS}, {SAMPLED}, begun AS (
    SELECT run_id, segment, min(sent_ns) AS begun_ns FROM requests JOIN line USING (run_id) GROUP BY ALL
)
SELECT line, run, segment, (sent_ns - begun_ns) / 1e9 AS at_s, chunk_offsets_us AS offsets_us
FROM requests JOIN line USING (run_id) JOIN sampled USING (line) JOIN begun USING (run_id, segment)
WHERE {MEASURED} AND NOT {IS_GATHERED} AND len(chunk_offsets_us) > 1 AND {IN_SAMPLE}
"""
_ENDS = f"""
WITH {GROUPS}, limits AS (SELECT run_id, {LIMITS_OF_RUN} FROM runs)
SELECT line, run, segment, {{added}}, {END_S} AS end_s
FROM requests JOIN line USING (run_id) JOIN limits USING (run_id)
    LEFT JOIN (SELECT run_id, segment, steady_from_ns FROM segments) USING (run_id, segment)
ORDER BY line, run, request_index
"""
_LENGTHS = f"WITH {GROUPS}, {LASTED} SELECT line, run, segment, duration_s FROM lasted JOIN line USING (run_id)"
_COMPLETED = "SELECT count(*) AS n FROM requests WHERE run_id = $1 AND error_kind IS NULL"
_GAPS = f"WITH {GROUPS} {gaps_sql('requests JOIN line USING (run_id)', 'line')} ORDER BY line, gap_us"


class Rows(Protocol):
    """A database to ask: a ``Reader``, or the ``Store`` of a load."""

    def query(self, sql: str, params: Any = None) -> list[dict[str, Any]]: ...
    def columns(self, sql: str, params: Any = None) -> dict[str, Array]: ...


def params_of(runs: Iterable[tuple[int, Sequence[str]]]) -> dict[str, Any]:
    """Return the query parameters that map the runs of each group (its id, its run ids) to it."""
    pairs = [(run_id, group) for group, run_ids in runs for run_id in run_ids]
    return {"run_ids": [run_id for run_id, _ in pairs], "lines": [group for _, group in pairs]}


def sample_of(counts: Mapping[int, int], most: int) -> dict[str, Any]:
    """Return the query parameters for a sample of about ``most`` requests per group, out of ``counts``."""
    return {"sampled": [*counts], "share": [min(1.0, most / n) if n else 1.0 for n in counts.values()]}


def in_order(rows: Rows, source: str, params: Mapping[str, Any]) -> Iterator[tuple[int, Array]]:
    """Yield key -> its values in the order sent; ``source`` selects ``key``, ``run``, ``request_index``, ``value``."""
    import numpy as np

    found = rows.columns(_IN_ORDER.format(source=source), params)
    keys, firsts = np.unique(found["key"], return_index=True)
    if len(keys):
        yield from zip(map(int, keys), np.split(found["value"].astype(float), firsts[1:]), strict=True)


def order_estimates(
    rows: Rows, source: str, params: Mapping[str, Any], percentiles: Mapping[str, float]
) -> dict[int, Latency]:
    """Return key -> percentiles with intervals, of values as ``in_order`` has them."""
    return {
        key: dict(zip(percentiles, percentile_estimates(values, [*percentiles.values()]), strict=True))
        for key, values in in_order(rows, source, params)
    }


def latency_estimates(
    rows: Rows, column: str, params: Mapping[str, Any], percentiles: Mapping[str, float]
) -> dict[int, Latency]:
    """Return group -> percentiles of a column over its completed requests."""
    return order_estimates(rows, _LATENCY.format(column=column), params, percentiles)


def gap_counts(rows: Rows, params: Mapping[str, Any]) -> GapCounts:
    """Return for each run group every gap between chunks, in µs, ascending, and how often it occurs."""
    columns = rows.columns(_GAPS, params)
    of = columns["line"]
    return {int(group): (columns["gap_us"][of == group], columns["n"][of == group]) for group in dict.fromkeys(of)}


def gap_percentile(counted: tuple[Array, Array], p: float) -> float | None:
    """Return the percentile of all gaps of a run group, in seconds."""
    return percentile_of_counts(counted[0] / 1e6, counted[1], p)


def gap_moments(
    rows: Rows, params: Mapping[str, Any], completed: Mapping[int, int]
) -> dict[int, tuple[int, list[Array]]]:
    """Return group -> the number of sampled requests, and their gaps by moment."""
    import numpy as np

    drawn: dict[int, list[dict[str, Any]]] = {group: [] for group in completed}
    for row in rows.query(_SAMPLE, {**params, **sample_of(completed, GAP_REQUESTS)}):
        if row["at_s"] is not None:
            drawn[row["line"]].append(row)
    found = {}
    for group, sample in drawn.items():
        offsets = [np.array(row["offsets_us"], dtype=float) / 1e6 for row in sample]
        last = np.array([row["at_s"] for row in sample]) + [each[-1] for each in offsets]
        run, segment = (np.array([row[name] for row in sample]) for name in ("run", "segment"))
        ends, _ = end_to_end(last, run, segment, {})
        starts = ends - [each[-1] for each in offsets]
        found[group] = len(sample), gaps_by_moment(starts, offsets)
    return found


def end_to_end(
    at_s: Array, run: Array, segment: Array, lengths: Mapping[tuple[int, int], float]
) -> tuple[Array, float]:
    """Return instants within each segment as ones of all segments laid end to end, and the length of all.

    A segment of unknown length (interrupted or killed) lasted as long as its rows show.
    """
    import numpy as np

    at, total = at_s.astype(float).copy(), 0.0
    for key in sorted({*lengths, *zip(map(int, run), map(int, segment), strict=True)}):
        inside = (run == key[0]) & (segment == key[1])
        known = float(lengths.get(key, np.nan))
        length = known if np.isfinite(known) else float(np.nanmax(at[inside], initial=0.0))
        at[inside] = np.minimum(at[inside], length) + total
        total += length
    return at, total


def slices_of(rows: Columns, segments: Columns) -> tuple[Array, int, float]:
    """Divide the total time of all segments into equal slices: the slice in which each request ended (-1 if it never
    did), their number and their length in seconds."""
    import numpy as np

    keys = zip(map(int, segments["run"]), map(int, segments["segment"]), strict=True)
    lengths = dict(zip(keys, segments["duration_s"].astype(float), strict=True))
    at, total = end_to_end(rows["end_s"], rows["run"], rows["segment"], lengths)
    slices = stretches(int(np.isfinite(at).sum()))
    if not total:
        return np.full(len(at), -1), slices, 0.0
    place = np.minimum(at / total * slices, slices - 1)
    return np.where(np.isfinite(place), np.nan_to_num(place), -1).astype(np.int64), slices, total / slices


def stretches(n: int) -> int:
    """Return into how many stretches n requests are divided: five or more in each, 8 to 20 of them."""
    return max(1, min(n, max(MIN_STRETCHES, min(MAX_STRETCHES, n // VALUES_A_STRETCH))))


def rate_estimates(
    rows: Rows, params: Mapping[str, Any], added: Mapping[str, str], confidence: float = CONFIDENCE
) -> dict[int, dict[str, Estimate]]:
    """Return group -> name -> a rate with its interval over slices of time; ``added``: SQL of what a row adds."""
    import numpy as np

    columns = ", ".join(f"({sql})::DOUBLE AS {name}" for name, sql in added.items())
    ends, segments = rows.columns(_ENDS.format(added=columns), params), rows.columns(_LENGTHS, params)
    found: dict[int, dict[str, Estimate]] = {}
    for group in map(int, np.unique(ends["line"])):
        own = {name: values[ends["line"] == group] for name, values in ends.items()}
        lengths = {name: values[segments["line"] == group] for name, values in segments.items()}
        slice_of, slices, slice_s = slices_of(own, lengths)
        ended = slice_of >= 0

        def estimate(values: Array, place: Array = slice_of, ended: Array = ended, count: int = slices,
                     length: float = slice_s) -> Estimate:  # fmt: skip
            sums = np.bincount(place[ended], np.nan_to_num(values)[ended], count)
            return ratio_estimate(sums, np.full(count, length), int(ended.sum()), 0.0, confidence)

        found[group] = {name: estimate(own[name].astype(float)) for name in added}
    return found


def about(figure: Estimate, value: float | None, n: int) -> Estimate:
    """Return an estimate of the value, ``n`` requests, with the interval of ``figure`` moved to it."""
    if value is None:
        return Estimate(n)
    if figure.value is None or figure.low is None or figure.high is None:
        return Estimate(n, value, needs=figure.needs, why=figure.why)
    return Estimate(n, value, max(0.0, value - (figure.value - figure.low)), value + figure.high - figure.value)


def bounds(least: Estimate, most: Estimate, n: int) -> Estimate:
    """Return what is known of a rate to which some answers add nobody knows what: where it begins and ends."""
    if least.value == most.value:
        return Estimate(n)
    return Estimate(n, None, least.low, most.high, why="whether some answers keep the limits of goodput is unknown")


def estimates_of(
    rows: Rows, run_id: str, metrics: Iterable[Metric], limits: Mapping[str, float] | None,
    confidence: float = CONFIDENCE,
) -> dict[str, Estimate]:  # fmt: skip
    """Return metric name -> its figure in this run with its interval; ``limits`` are those of goodput."""
    wanted = {metric.name: metric for metric in metrics}
    values = measured(rows.query, run_id, wanted.values(), limits)
    good = good_sql({column: repr(limit) for column, limit in (limits or {}).items()})
    return {name: _estimate(rows, run_id, metric, values[name], good, confidence) for name, metric in wanted.items()}


def _estimate(rows: Rows, run_id: str, metric: Metric, found: Measured, good: str, confidence: float) -> Estimate:
    """Return one figure; a value that has no interval of its own keeps none."""
    params, (value, n) = params_of([(0, [run_id])]), found
    if value is None and "{good}" in metric.sql and n:
        ends = {"least": metric.sql.format(good=good), "most": metric.sql.format(good=possibly(good))}
        return bounds(**rate_estimates(rows, params, ends, confidence)[0], n=n)
    if value is None:
        return Estimate(n, why=_why_unknown(rows, run_id, metric) if metric.kind == "latency" and not n else None)
    if metric.kind == "share":
        return wilson(max(0, min(value * n, n)), n, confidence)
    if metric.kind == "rate":
        added = {"rate": metric.sql.format(good=good)}
        return about(rate_estimates(rows, params, added, confidence)[0]["rate"], value, n)
    if metric.counts == "gap":
        return _gap_estimate(rows, params, metric, found, confidence)
    estimate = order_estimate(metric, dict(values_of(rows, metric, params))[0], confidence)
    return estimate if metric.p is None else replace(estimate, n=n, value=value)


def values_of(rows: Rows, metric: Metric, params: Mapping[str, Any]) -> Iterator[tuple[int, Array]]:
    """Yield group -> the values of a latency, or of a score, in the order sent."""
    source = _SCORE if metric.kind == "score" else _LATENCY
    return in_order(rows, source.format(column=metric.column), params)


def order_estimate(metric: Metric, values: Array, confidence: float = CONFIDENCE) -> Estimate:
    """Return a percentile, or the mean, of values in the order sent."""
    if metric.p is None:
        return mean_estimate(values, -1.0 if metric.kind == "score" else 0.0, confidence)
    return percentile_estimate(values, metric.p, confidence)


def _why_unknown(rows: Rows, run_id: str, metric: Metric) -> str | None:
    """Return why no answer has a latency that it should have; None if there is nothing to have."""
    sql = f"SELECT count(*) AS n FROM requests WHERE run_id = $1 AND {MEASURED} AND {metric.unknown_sql}"
    (unknown,) = rows.query(sql, [run_id])
    return why_unknown(metric, unknown["n"])


def why_unknown(metric: Metric, unknown: int) -> str | None:
    """Return why a latency is absent that so many answers should have; None if there are none."""
    return f"{metric.label.split()[0]} of {plural(unknown, 'answer')} is unknown" if unknown else None


def _gap_estimate(
    rows: Rows, params: Mapping[str, Any], metric: Metric, found: Measured, confidence: float
) -> Estimate:
    (completed,) = rows.query(_COMPLETED, params["run_ids"])
    return gap_estimate(metric, found, *gap_moments(rows, params, {0: completed["n"]})[0], confidence)


def gap_estimate(
    metric: Metric, found: Measured, requests: int, moments: Sequence[Array], confidence: float = CONFIDENCE
) -> Estimate:
    """Return a figure of all gaps, with its interval from the moments of those of so many sampled requests."""
    import numpy as np

    if metric.p is None:
        sums, sizes = (np.array([f(each) for each in moments], dtype=float) for f in (np.sum, len))
        estimate = ratio_estimate(sums, sizes, requests, 0.0, confidence)
        shift = 0.0 if estimate.value is None or found.value is None else found.value - estimate.value
        low, high = (None if end is None else end + shift for end in (estimate.low, estimate.high))
        return Estimate(found.n, found.value, low, high, estimate.needs, unit="gaps", why=estimate.why)
    (estimate,) = gap_percentiles(moments, [metric.p], [found.value], requests, confidence)
    return Estimate(found.n, found.value, estimate.low, estimate.high, estimate.needs, estimate.unit, estimate.why)
