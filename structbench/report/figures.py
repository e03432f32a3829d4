"""The figures of each line with their intervals: SQL for the sums and the sorted values, structbench.stats for the rest.

Invariant: percentiles are over completed requests, as in the view ``summary``, and no figure stands without n.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from structbench.report.lines import Line
from structbench.stats import (
    Estimate,
    gap_percentiles,
    percentile_estimate,
    percentile_of_counts,
    ranks_around,
    rate_per_s,
    wilson,
)

if TYPE_CHECKING:
    import numpy as np

    from structbench.store import Reader

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
LATENCIES = ("ttft_s", "ttft_due_s", "tpot_s", "e2e_s")
"""Columns of ``requests``; beside them stands ``itl_s``, over all gaps."""
SHARES = {
    "correct": "requests with the outcome correct / scored",
    "accuracy": "mean score / scored",
    "json_valid": "valid JSON / answers that had to be JSON",
    "schema_valid": "valid against the schema / answers that had to be",
    "tool_calls_right": "mean share of calls right / answers that had to call tools or leave it",
    "error_rate": "failed requests / requests",
}
GAP_REQUESTS = 400
"""ITL's intervals are made of at most about so many requests of a line, spread evenly over it."""

LINES = "line AS (SELECT unnest($run_ids::VARCHAR[]) AS run_id, unnest($lines::BIGINT[]) AS line)"
_COUNTS = f"""
WITH {LINES}
SELECT line, count(*) AS requests, count(error_kind) AS errors, count(*) FILTER (error_kind IS NULL) AS completed,
    count(*) FILTER (error_kind = 'dropped') AS dropped, count(*) FILTER (outcome = 'correct') AS correct,
    count(accuracy_score) AS scored, sum(accuracy_score) AS accuracy,
    count(json_valid) AS json_scored, count(*) FILTER (json_valid) AS json_valid,
    count(schema_valid) AS schema_scored, count(*) FILTER (schema_valid) AS schema_valid,
    count(tool_call_accuracy) AS tool_calls_scored, sum(tool_call_accuracy) AS tool_calls_right,
    coalesce(sum(output_tokens) FILTER (error_kind IS NULL), 0)::BIGINT AS output_tokens,
    median(client_tokens_per_s) FILTER (error_kind IS NULL) AS stream_tokens_per_s,
    {", ".join(f"count({name}) FILTER (error_kind IS NULL) AS {name}" for name in LATENCIES)}
FROM requests JOIN line USING (run_id) GROUP BY line
"""
_AT_RANKS = f"""
WITH {LINES}, wanted AS (SELECT unnest($wanted::BIGINT[]) AS line, unnest($ranks::BIGINT[][]) AS ranks)
SELECT line, list_select(list_sort(list({{column}})), any_value(ranks)) AS found
FROM requests JOIN line USING (run_id) JOIN wanted USING (line)
WHERE error_kind IS NULL AND {{column}} IS NOT NULL GROUP BY line
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
# The golden ratio's multiples are spread evenly: an even sample over the run, the same each time.
_SAMPLE = f"""
WITH {LINES}, wanted AS (SELECT unnest($wanted::BIGINT[]) AS line, unnest($share::DOUBLE[]) AS share)
SELECT line, chunk_offsets_us AS offsets_us FROM requests JOIN line USING (run_id) JOIN wanted USING (line)
WHERE error_kind IS NULL AND len(chunk_offsets_us) > 1 AND (request_index * 2654435761) % 4294967296 < share * 4294967296
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured in one line."""

    counts: Mapping[str, int]
    """requests, completed, errors, dropped, scored, output_tokens."""
    latencies: Mapping[str, Mapping[str, Estimate]]
    """Column (and itl_s) -> p50, p90, p95, p99."""
    shares: Mapping[str, Estimate]
    correct_goodput: Estimate
    requests_per_s: float | None
    tokens_per_s: float | None
    stream_tokens_per_s: float | None
    outcomes: Sequence[tuple[str, bool, int]]
    """Outcome, whether the request failed, how many; answers first, the most frequent first."""


def params_of(lines: Iterable[Line]) -> dict[str, Any]:
    """Which run belongs to which line, as the queries want it."""
    pairs = [(run_id, line.id) for line in lines for run_id in line.run_ids]
    return {"run_ids": [run_id for run_id, _ in pairs], "lines": [line for _, line in pairs]}


def figures_of(reader: Reader, lines: Sequence[Line]) -> dict[int, Figures]:
    """Line id -> its figures."""
    params = params_of(lines)
    counts = {row["line"]: row for row in reader.query(_COUNTS, params)}
    for line in lines:
        counts.setdefault(line.id, dict.fromkeys(next(iter(counts.values()), {}), 0))
    latencies = {column: _latency(reader, params, counts, column) for column in LATENCIES}
    latencies["itl_s"] = _gaps(reader, params, counts)
    outcomes: dict[int, list[tuple[str, bool, int]]] = {}
    for row in reader.query(_OUTCOMES, params):
        outcomes.setdefault(row["line"], []).append((row["outcome"], row["failed"], row["count"]))
    return {
        line.id: _figures(line, counts[line.id], {name: found[line.id] for name, found in latencies.items()},
                          outcomes.get(line.id, []))
        for line in lines
    }  # fmt: skip


Latency = dict[str, Estimate]


def _latency(reader: Reader, params: Mapping[str, Any], counts: Mapping[int, Any], column: str) -> dict[int, Latency]:
    ranks = {line: {p: ranks_around(row[column], share) for p, share in PERCENTILES.items()}
             for line, row in counts.items()}  # fmt: skip
    wanted = {line: [rank for each in known.values() if each is not None for rank in each]
              for line, known in ranks.items()}  # fmt: skip
    found = {
        row["line"]: iter(row["found"])
        for row in reader.query(
            _AT_RANKS.format(column=column),
            {**params, "wanted": [*wanted], "ranks": [*wanted.values()]},
        )
    }
    return {
        line: {
            p: percentile_estimate(
                counts[line][column], PERCENTILES[p], None if each is None else [next(found[line]) for _ in each]
            )
            for p, each in known.items()
        }
        for line, known in ranks.items()
    }


def _gaps(reader: Reader, params: Mapping[str, Any], counts: Mapping[int, Any]) -> dict[int, Latency]:
    every = _by_line(reader.columns(_GAPS, params))
    shares = [min(1.0, GAP_REQUESTS / row["completed"]) if row["completed"] else 1.0 for row in counts.values()]
    drawn: dict[int, list[Any]] = {line: [] for line in counts}
    for row in reader.query(_SAMPLE, {**params, "wanted": [*counts], "share": shares}):
        drawn[row["line"]].append(_diff_s(row["offsets_us"]))
    estimates: dict[int, Latency] = {}
    for line, sample in drawn.items():
        known = None
        if line in every:
            values, times = every[line]
            known = [percentile_of_counts(values / 1e6, times, p) for p in PERCENTILES.values()]
        estimates[line] = dict(zip(PERCENTILES, gap_percentiles(sample, [*PERCENTILES.values()], known), strict=True))
    return estimates


def _by_line(columns: Mapping[str, np.ndarray[Any, Any]]) -> dict[int, tuple[Any, Any]]:
    lines = columns["line"]
    return {
        int(line): (columns["gap_us"][lines == line], columns["n"][lines == line]) for line in dict.fromkeys(lines)
    }


def _diff_s(offsets_us: Sequence[int]) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.diff(offsets_us) / 1e6


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
        correct_goodput=rate_per_s(shares["correct"], seconds),
        requests_per_s=row["completed"] / seconds if seconds else None,
        tokens_per_s=row["output_tokens"] / seconds if seconds else None,
        stream_tokens_per_s=row["stream_tokens_per_s"], outcomes=outcomes,
    )  # fmt: skip


def _mean(total: float | None, n: int) -> Estimate:
    return wilson(0 if total is None else min(total, n), n)
