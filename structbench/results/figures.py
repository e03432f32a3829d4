"""The figures of each line with their intervals: sums and sorted values from SQL, the rest from structbench.stats.

Invariant: percentiles are over completed requests, as in the view ``summary``, and no figure stands without n.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from structbench.results.groups import Line
from structbench.stats import (
    Estimate,
    gap_percentiles,
    percentile_estimate,
    percentile_of_counts,
    ranks_around,
    rate_per_s,
    wilson,
)
from structbench.store.views import GOOD, LIMITS

if TYPE_CHECKING:
    import numpy as np

    from structbench.store import Reader

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
LATENCIES = ("ttft_s", "ttft_due_s", "tpot_s", "e2e_s")
"""Columns of ``requests``; beside them stands ``itl_s``, over all gaps."""
GAP_REQUESTS = 300
"""ITL's intervals are made of at most about so many requests of a line, spread evenly over it."""

LINES = "line AS (SELECT unnest($run_ids::VARCHAR[]) AS run_id, unnest($lines::BIGINT[]) AS line)"
SHARES_OF_LINES = "sampled AS (SELECT unnest($sampled::BIGINT[]) AS line, unnest($share::DOUBLE[]) AS share)"
# Multiples of the golden ratio are spread evenly: an even sample over the run, the same each time.
DRAWN = "(request_index * 2654435761) % 4294967296 < share * 4294967296"
"""Goes with ``sample_of``: about so many requests of a line."""
_COUNTS = f"""
WITH {LINES}, limits AS (SELECT run_id, goodput_limits IS NOT NULL AS limited, {LIMITS} FROM runs)
SELECT line, count(request_index) AS requests, count(error_kind) AS errors,
    count(request_index) FILTER (error_kind IS NULL) AS completed,
    count(*) FILTER (error_kind = 'dropped') AS dropped, count(*) FILTER (outcome = 'correct') AS correct,
    count(*) FILTER (outcome = 'correct' AND error_kind IS NULL AND {GOOD}) AS correct_and_good,
    CASE WHEN bool_or(limited) THEN count(*) FILTER (error_kind IS NULL AND {GOOD}) END AS good,
    count(accuracy_score) AS scored, sum(accuracy_score) AS accuracy,
    count(json_valid) AS json_scored, count(*) FILTER (json_valid) AS json_valid,
    count(schema_valid) AS schema_scored, count(*) FILTER (schema_valid) AS schema_valid,
    count(tool_call_accuracy) AS tool_calls_scored, sum(tool_call_accuracy) AS tool_calls_right,
    coalesce(sum(output_tokens) FILTER (error_kind IS NULL), 0)::BIGINT AS output_tokens,
    median(client_tokens_per_s) FILTER (error_kind IS NULL) AS stream_tokens_per_s
FROM line LEFT JOIN requests USING (run_id) LEFT JOIN limits USING (run_id) GROUP BY line
"""
_LATENCY = f"""
WITH {LINES} SELECT line AS key, {{column}} AS value FROM requests JOIN line USING (run_id) WHERE error_kind IS NULL
"""
_COUNT = "WITH source AS ({source}) SELECT key, count(value) AS n FROM source GROUP BY key ORDER BY key"
_AT_RANKS = """
WITH source AS ({source}), wanted AS (SELECT unnest($keys::BIGINT[]) AS key, unnest($ranks::BIGINT[][]) AS ranks)
SELECT key, list_select(list_sort(list(value)), any_value(ranks)) AS found
FROM source JOIN wanted USING (key) WHERE value IS NOT NULL GROUP BY key
"""
_OUTCOMES = f"""
WITH {LINES}
SELECT line, outcome, error_kind IS NOT NULL AS failed, count(*) AS count
FROM requests JOIN line USING (run_id) GROUP BY ALL ORDER BY line, failed, count DESC, outcome
"""
_GAPS = f"""
WITH {LINES}
SELECT line, later - earlier AS gap_us, count(*) AS n FROM (
    SELECT line, unnest(chunk_offsets_us[1:-2]) AS earlier, unnest(chunk_offsets_us[2:]) AS later
    FROM requests JOIN line USING (run_id) WHERE error_kind IS NULL AND len(chunk_offsets_us) > 1
) GROUP BY ALL ORDER BY line, gap_us
"""
_KNOWN_GAPS = f"WITH {LINES} SELECT line, {', '.join(PERCENTILES)} FROM gap_percentiles JOIN line USING (run_id)"
_SAMPLE = f"""
WITH {LINES}, {SHARES_OF_LINES}
SELECT line, chunk_offsets_us AS offsets_us FROM requests JOIN line USING (run_id) JOIN sampled USING (line)
WHERE error_kind IS NULL AND len(chunk_offsets_us) > 1 AND {DRAWN}
"""


Latency = dict[str, Estimate]
"""p50, p90, p95, p99 -> the estimate."""
GapCounts = Mapping[int, tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured in one line."""

    counts: Mapping[str, int]
    """requests, completed, errors, dropped, scored, output_tokens."""
    latencies: Mapping[str, Latency]
    """Column (and itl_s) -> p50, p90, p95, p99."""
    shares: Mapping[str, Estimate]
    """correct, accuracy, json_valid, schema_valid, tool_calls_right (of scored answers), error_rate (of requests)."""
    correct_goodput: Estimate
    """Correct answers a second that keep the limits of --goodput, where the run has any."""
    goodput: float | None
    requests_per_s: float | None
    tokens_per_s: float | None
    stream_tokens_per_s: float | None
    outcomes: Sequence[tuple[str, bool, int]]
    """Outcome, whether the request failed, how many; answers first, the most frequent first."""


def params_of(lines: Iterable[Line]) -> dict[str, Any]:
    """Which run belongs to which line, as the queries want it."""
    pairs = [(run_id, line.id) for line in lines for run_id in line.run_ids]
    return {"run_ids": [run_id for run_id, _ in pairs], "lines": [line for _, line in pairs]}


def sample_of(counts: Mapping[int, int], most: int) -> dict[str, Any]:
    """The parameters of a sample of about ``most`` requests of each line, of which there are ``counts``."""
    return {"sampled": [*counts], "share": [min(1.0, most / n) if n else 1.0 for n in counts.values()]}


def figures_of(reader: Reader, lines: Sequence[Line], gaps: GapCounts | None) -> dict[int, Figures]:
    """Line id -> its figures; without the gaps counted, each line must be one run, whose ITL the store knows."""
    params = params_of(lines)
    counts = {row["line"]: row for row in reader.query(_COUNTS, params)}
    latencies: dict[str, dict[int, Latency]] = {
        column: order_estimates(reader, _LATENCY.format(column=column), params, PERCENTILES) for column in LATENCIES
    }
    latencies["itl_s"] = _gap_estimates(reader, params, {line: row["completed"] for line, row in counts.items()}, gaps)
    outcomes: dict[int, list[tuple[str, bool, int]]] = {}
    for row in reader.query(_OUTCOMES, params):
        outcomes.setdefault(row["line"], []).append((row["outcome"], row["failed"], row["count"]))
    none = {name: Estimate(0) for name in PERCENTILES}
    return {
        line.id: _figures(line, counts[line.id],
                          {name: found.get(line.id, none) for name, found in latencies.items()},
                          outcomes.get(line.id, []))
        for line in lines
    }  # fmt: skip


def order_estimates(
    reader: Reader, source: str, params: Mapping[str, Any], percentiles: Mapping[str, float]
) -> dict[int, Latency]:
    """Percentiles of independent values with intervals; ``source`` selects ``key`` (an integer) and ``value``."""
    counts = {row["key"]: row["n"] for row in reader.query(_COUNT.format(source=source), params)}
    ranks = {key: {name: ranks_around(n, p) for name, p in percentiles.items()} for key, n in counts.items()}
    wanted = {key: [rank for each in known.values() for rank in each or ()] for key, known in ranks.items()}
    found = {
        row["key"]: iter(row["found"])
        for row in reader.query(
            _AT_RANKS.format(source=source), {**params, "keys": [*wanted], "ranks": [*wanted.values()]}
        )
    }
    return {
        key: {
            name: percentile_estimate(
                counts[key], percentiles[name], None if each is None else [next(found[key]) for _ in each]
            )
            for name, each in known.items()
        }
        for key, known in ranks.items()
    }


def gap_counts(reader: Reader, lines: Sequence[Line]) -> GapCounts:
    """Of each line every gap between chunks, in µs, ascending, and how often it came."""
    columns = reader.columns(_GAPS, params_of(lines))
    of = columns["line"]
    return {int(line): (columns["gap_us"][of == line], columns["n"][of == line]) for line in dict.fromkeys(of)}


def _gap_estimates(
    reader: Reader, params: Mapping[str, Any], completed: Mapping[int, int], gaps: GapCounts | None
) -> dict[int, Latency]:
    """The percentiles of all gaps; the intervals from a sample of requests."""
    import numpy as np

    known: Mapping[int, list[float | None]] = (
        {row["line"]: [row[name] for name in PERCENTILES] for row in reader.query(_KNOWN_GAPS, params)}
        if gaps is None
        else {line: [gap_percentile(counted, p) for p in PERCENTILES.values()] for line, counted in gaps.items()}
    )
    drawn: dict[int, list[np.ndarray[Any, Any]]] = {line: [] for line in completed}
    for row in reader.query(_SAMPLE, {**params, **sample_of(completed, GAP_REQUESTS)}):
        drawn[row["line"]].append(np.diff(row["offsets_us"]) / 1e6)
    return {
        line: dict(zip(PERCENTILES, gap_percentiles(sample, [*PERCENTILES.values()], known.get(line)), strict=True))
        for line, sample in drawn.items()
    }


def gap_percentile(counted: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], p: float) -> float | None:
    """Of all gaps of a line, in seconds."""
    return percentile_of_counts(counted[0] / 1e6, counted[1], p)


def _figures(
    line: Line, row: Mapping[str, Any], latencies: Mapping[str, Latency], outcomes: Sequence[tuple[str, bool, int]]
) -> Figures:
    scored, seconds = row["scored"], line.duration_s
    shares = {
        "correct": wilson(row["correct"] if scored else 0, scored),
        "accuracy": _mean(row["accuracy"], scored),
        "json_valid": _mean(row["json_valid"], row["json_scored"]),
        "schema_valid": _mean(row["schema_valid"], row["schema_scored"]),
        "tool_calls_right": _mean(row["tool_calls_right"], row["tool_calls_scored"]),
        "error_rate": _mean(row["errors"], row["requests"]),
    }
    counted = ("requests", "completed", "errors", "dropped", "scored", "output_tokens")
    return Figures(
        counts={name: row[name] for name in counted}, latencies=latencies, shares=shares,
        correct_goodput=rate_per_s(wilson(row["correct_and_good"] if scored else 0, scored), seconds),
        goodput=row["good"] / seconds if seconds and row["good"] is not None else None,
        requests_per_s=row["completed"] / seconds if seconds else None,
        tokens_per_s=row["output_tokens"] / seconds if seconds else None,
        stream_tokens_per_s=row["stream_tokens_per_s"], outcomes=outcomes,
    )  # fmt: skip


def _mean(total: float | None, n: int) -> Estimate:
    return wilson(0 if total is None else min(total, n), n)
