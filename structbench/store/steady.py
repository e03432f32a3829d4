"""Marks the requests of a run that were sent while the load was the one asked for (``structbench.steadiness``)."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from structbench.steadiness import FEWEST, opening_end_ns, opening_size

if TYPE_CHECKING:
    import duckdb

_FIRST = """
SELECT segment, due_ns, sent_ns, end_ns, ttft_s, error_kind FROM requests
WHERE run_id = $1 AND coalesce(due_ns, sent_ns) IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY segment ORDER BY coalesce(due_ns, sent_ns)) <= $2
ORDER BY segment
"""
_SPANS = """
WITH opened AS (SELECT unnest($2::BIGINT[]) AS segment, unnest($3::BIGINT[]) AS from_ns),
asked AS (
    SELECT segment, coalesce(due_ns, sent_ns) AS at_ns, CASE WHEN error_kind IS NULL THEN end_ns END AS done_ns,
        max(at_ns) FILTER (WHERE turn IS DISTINCT FROM 2) OVER (PARTITION BY segment) AS to_ns,
        min(at_ns) OVER (PARTITION BY segment) AS began_ns
    FROM requests WHERE run_id = $1
)
SELECT segment, from_ns, to_ns, coalesce(max(done_ns) FILTER (WHERE done_ns <= from_ns), from_ns) AS counted_from_ns,
    max(done_ns) FILTER (WHERE done_ns <= to_ns) AS counted_to_ns
FROM asked JOIN opened USING (segment) GROUP BY segment, from_ns, to_ns, began_ns
HAVING counted_to_ns > counted_from_ns AND count(*) FILTER (WHERE at_ns > from_ns AND at_ns <= to_ns) >= $4
    AND ($5 OR to_ns - from_ns >= from_ns - began_ns)
"""
"""The steady part of each segment that has one: its requests were due or sent in (from, to]. For rates, answers are
counted from one completion to another, so that neither end cuts through one. It has at least $4 requests and, in an
open loop (not $5), is at least as long as the opening."""
_NONE = "UPDATE requests SET steady = $2, ended_steady = $2 WHERE run_id = $1"
_NO_SPAN = "UPDATE segments SET steady_from_ns = NULL, steady_to_ns = NULL WHERE run_id = $1"
_MARK = """
UPDATE requests SET ended_steady = coalesce(end_ns > $5 AND end_ns <= $6, false),
    steady = coalesce(coalesce(due_ns, sent_ns) > $3 AND coalesce(due_ns, sent_ns) <= $4, false)
WHERE run_id = $1 AND segment = $2
"""
_SPAN = "UPDATE segments SET steady_from_ns = $3, steady_to_ns = $4 WHERE run_id = $1 AND segment = $2"


def mark_steady(con: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Fill ``steady`` and ``ended_steady`` of the run's requests, and the span that rates are counted in.

    All requests are steady where one at a time was in flight; none is known to be (NULL) in a run that is too short.
    The caller has begun a transaction.
    """
    run = con.execute("SELECT load_kind, concurrency FROM runs WHERE run_id = $1", [run_id]).fetchall()
    concurrency = run[0][1] if run and run[0][0] == "closed" else None
    spans = [] if concurrency == 1 else _spans(con, run_id, concurrency)
    con.execute(_NO_SPAN, [run_id]).fetchall()
    con.execute(_NONE, [run_id, True if concurrency == 1 else False if spans else None]).fetchall()
    for segment, from_ns, to_ns, counted_from_ns, counted_to_ns in spans:
        con.execute(_MARK, [run_id, segment, from_ns, to_ns, counted_from_ns, counted_to_ns]).fetchall()
        con.execute(_SPAN, [run_id, segment, counted_from_ns, counted_to_ns]).fetchall()


def _spans(con: duckdb.DuckDBPyConnection, run_id: str, concurrency: int | None) -> list[tuple[int, ...]]:
    found = con.execute(_FIRST, [run_id, opening_size(concurrency)])
    names = [column[0] for column in found.description or ()]
    first = [dict(zip(names, values, strict=True)) for values in found.fetchall()]
    ends = {
        segment: opening_end_ns(concurrency, list(rows)) for segment, rows in groupby(first, lambda r: r["segment"])
    }
    over = {segment: end for segment, end in ends.items() if end is not None}
    fewest, closed = max(FEWEST, concurrency or 0), concurrency is not None
    return con.execute(_SPANS, [run_id, [*over], [*over.values()], fewest, closed]).fetchall()
