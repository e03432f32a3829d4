"""Data for the charts of a report, by run group; its size does not grow with the number of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from structbench.metrics import CHARTED, FAILED, IS_GATHERED, MEASURED, Metric
from structbench.results.figures import Figures, runs_of
from structbench.results.groups import RunGroup
from structbench.results.intervals import (
    GROUPS,
    IN_SAMPLE,
    SAMPLED,
    GapCounts,
    Rows,
    gap_percentile,
    order_estimates,
    sample_of,
)
from structbench.stats import Estimate, needed

CURVE = [i / 100 for i in range(101)]
POSITION_REQUESTS = 2000
"""About the maximum number of requests per run group that the gap along the answer is taken from."""
TIMELINE_POINTS = 3000
"""The maximum number of points in all; each run group has at least MIN_POINTS."""
MIN_POINTS = 60
EDGES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
"""The number of gaps after which each bin of the answer ends: bin i has the gaps EDGES[i] + 1 .. EDGES[i + 1]."""
PARTS = ("send_lag_s", "connect_s", "load_s", "prompt_eval_s", "rest_s")

_CURVES = f"""
WITH {GROUPS}
SELECT line, quantile_cont({{column}}, $curve::DOUBLE[]) AS found
FROM requests JOIN line USING (run_id) WHERE {MEASURED} AND {{column}} IS NOT NULL GROUP BY line
"""
# A gap of chunk k is from chunk k to k + 1; a bin's mean gap is the time between its outer chunks / its gaps.
_POSITIONS = f"""
WITH {GROUPS}, {SAMPLED}, bin AS (
    SELECT unnest(range(len($edges) - 1)) AS bin, unnest($edges[:-2]) AS before, unnest($edges[2:]) AS upto
), answer AS (
    SELECT line, run, request_index, chunk_offsets_us AS offsets_us
    FROM requests JOIN line USING (run_id) JOIN sampled USING (line)
    WHERE {MEASURED} AND NOT {IS_GATHERED} AND {IN_SAMPLE}
)
SELECT line * 1000 + bin AS key, run, request_index,
    (offsets_us[upto + 1] - offsets_us[before + 1]) / 1e6 / (upto - before) AS value
FROM answer JOIN bin ON len(offsets_us) > upto
"""
_PARTS = f"""
WITH {GROUPS}
SELECT line, count(*) AS n, {", ".join(f"avg({part}) AS {part}" for part in PARTS)}
FROM decomposition JOIN line USING (run_id) GROUP BY line
"""
_TIMELINE = f"""
WITH {GROUPS}, {SAMPLED}, span AS (
    SELECT run_id, segment, min(coalesce(sent_ns, due_ns)) AS first_ns, max(coalesce(end_ns, due_ns)) AS last_ns
    FROM requests JOIN line USING (run_id) GROUP BY run_id, segment
), origin AS (
    SELECT run_id, segment, first_ns - coalesce(sum(last_ns - first_ns) OVER (
        PARTITION BY run_id ORDER BY segment ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS origin_ns
    FROM span
)
SELECT line, round((coalesce(sent_ns, due_ns) - origin_ns) / 1e9, 3) AS t_s, round(ttft_s, 4) AS ttft_s,
    round((end_ns - sent_ns) / 1e9, 4) AS took_s, outcome, {FAILED} AS failed
FROM requests JOIN line USING (run_id) JOIN sampled USING (line) JOIN origin USING (run_id, segment)
WHERE {IN_SAMPLE} AND error_kind IS DISTINCT FROM 'cancelled' ORDER BY line, t_s
"""


def curves_of(
    reader: Rows, groups: Sequence[RunGroup], figures: Mapping[int, Figures], gaps: GapCounts
) -> dict[str, list[dict[str, Any]]]:
    """Return ``Metric.key`` -> for each run group its values at every percent and ``share``, the completed share.

    A group with fewer values than the interval of a median needs (6) has no curve.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for metric in CHARTED:
        values = _gap_curves(gaps) if metric.counts == "gap" else _request_curves(reader, groups, metric.column)
        found[metric.key] = [
            {"line": group.id, "share": _completed_share(figures[group.id], metric), "values": values[group.id]}
            for group in groups
            if group.id in values and figures[group.id].counts["completed"] >= needed(0.5)
        ]
    return found


def _request_curves(reader: Rows, groups: Sequence[RunGroup], column: str) -> dict[int, list[float]]:
    rows = reader.query(_CURVES.format(column=column), {**runs_of(groups), "curve": CURVE})
    return {row["line"]: [_rounded(value) for value in row["found"]] for row in rows}


def _gap_curves(gaps: GapCounts) -> dict[int, list[float]]:
    return {group: [_rounded(gap_percentile(counted, p) or 0.0) for p in CURVE] for group, counted in gaps.items()}


def _completed_share(figures: Figures, metric: Metric) -> float:
    """Return the share of requests that completed; 1 for a metric that an answer may lack."""
    if metric.may_be_absent or not figures.counts["requests"]:
        return 1.0
    return float(figures.counts["completed"] / figures.counts["requests"])


def positions_of(reader: Rows, groups: Sequence[RunGroup], figures: Mapping[int, Figures]) -> list[dict[str, Any]]:
    """Return the median and p95 of the mean gap in each bin, over requests whose answer reaches the bin's end."""
    counts = {group.id: figures[group.id].counts["completed"] for group in groups}
    params = {**runs_of(groups), **sample_of(counts, POSITION_REQUESTS), "edges": list(EDGES)}
    found = order_estimates(reader, _POSITIONS, params, {"p50": 0.5, "p95": 0.95})
    return [
        {"line": key // 1000, "from": EDGES[key % 1000] + 1, "to": EDGES[key % 1000 + 1], "n": each["p50"].n,
         "p50": _interval_json(each["p50"]), "p95": _interval_json(each["p95"])}
        for key, each in sorted(found.items())
    ]  # fmt: skip


def parts_of(reader: Rows, groups: Sequence[RunGroup]) -> list[dict[str, Any]]:
    """Return the parts of TTFT from the due instant: the means of the parts add up to the mean TTFT."""
    rows = reader.query(_PARTS, runs_of(groups))
    return sorted(({key: _rounded(value) for key, value in row.items()} for row in rows), key=lambda row: row["line"])


def timeline_of(reader: Rows, groups: Sequence[RunGroup], figures: Mapping[int, Figures]) -> list[dict[str, Any]]:
    """Return for each run group an even sample of its requests by the time they were sent, one list per column.

    Segments of a resumed run, and pooled runs, are placed as if there were no pause between them.
    """
    counts = {group.id: figures[group.id].counts["requests"] for group in groups}
    most = max(MIN_POINTS, TIMELINE_POINTS // max(1, len(groups)))
    rows = reader.query(_TIMELINE, {**runs_of(groups), **sample_of(counts, most)})
    found = []
    for group, requests in counts.items():
        own = [row for row in rows if row["line"] == group]
        columns = {name: [row[name] for row in own] for name in ("t_s", "ttft_s", "took_s", "outcome", "failed")}
        found.append({"line": group, "shown": len(own), "requests": requests, **columns})
    return found


def _interval_json(estimate: Estimate) -> dict[str, float] | None:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return None
    return {"value": _rounded(estimate.value), "low": _rounded(estimate.low), "high": _rounded(estimate.high)}


def _rounded(value: Any) -> Any:
    """Return the value with five digits, more than any clock here can resolve."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
