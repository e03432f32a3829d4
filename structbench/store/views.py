"""SQL that readers share with the views; the views are in ``views.sql``, their columns in docs/store.md."""

from __future__ import annotations

from collections.abc import Mapping

from structbench.metrics import FAILED, PERCENTILES, gaps_sql

_LOAD = (
    "CASE WHEN rate IS NOT NULL THEN format('rate={:g}/s ', rate) || coalesce(arrival, '')"
    " WHEN concurrency IS NOT NULL THEN 'c=' || concurrency ELSE load_kind END"
)


_KEPT_PERCENTILES = {**PERCENTILES, "max": 1.0}


def gap_percentiles_of(run_ids: str, ps: Mapping[str, float] = _KEPT_PERCENTILES) -> str:
    """Return SQL for percentiles (column -> quantile) of all gaps of each run in a subquery with the column ``run_id``.

    A join, not IN, so that only the offsets of these runs are read.
    """
    columns = ", ".join(f"max(gap_s) FILTER (WHERE p = {p!r}::DOUBLE) AS {name}" for name, p in ps.items())
    return f"""
    WITH gaps AS ({gaps_sql(f"requests JOIN ({run_ids}) USING (run_id)", "run_id")}
    ), ranked AS (
        SELECT run_id, gap_us, (sum(n) OVER (PARTITION BY run_id ORDER BY gap_us))::BIGINT AS upto,
            (sum(n) OVER (PARTITION BY run_id))::BIGINT AS total
        FROM gaps
    ), around AS (
        SELECT run_id, p, any_value(total) AS gaps, any_value(p * (total - 1)) AS place,
            min(gap_us) FILTER (WHERE upto > floor(p * (total - 1))) AS low,
            min(gap_us) FILTER (WHERE upto > ceil(p * (total - 1))) AS high
        FROM ranked CROSS JOIN (VALUES {", ".join(f"({p!r}::DOUBLE)" for p in ps.values())}) AS t(p)
        GROUP BY run_id, p
    ), points AS (
        SELECT run_id, p, gaps, (low + (high - low) * (place - floor(place))) / 1e6 AS gap_s FROM around
    )
    SELECT run_id, any_value(gaps) AS gaps, {columns}
    FROM points GROUP BY run_id
    """


ROWS_OF_RUNS = "SELECT run_id, count(*) AS requests, sum(chunks) AS chunks FROM requests GROUP BY run_id"

GAPS_TO_KEEP = f"""
SELECT * FROM ({gap_percentiles_of("SELECT $1 AS run_id")}) JOIN ({ROWS_OF_RUNS}) USING (run_id)
"""
"""The row of ``run_gaps`` of one run."""

RUN_LIST = f"""
SELECT run_id, model, suite, {_LOAD} AS load, started_at, finished_at, planned, coalesce(requests, 0) AS requests,
    coalesce(errors, 0) AS errors, scored, correct, status, verdict, verdict_reason, label, server_kind, server_version,
    config ->> '$.server_address' AS server_address, api, quantization, parameters, context_tokens, server_slots,
    config_hash, coalesce(forgotten, false) AS forgotten, environment
FROM runs LEFT JOIN (
    SELECT run_id, count(*) AS requests, count(*) FILTER ({FAILED}) AS errors, count(accuracy_score) AS scored,
        count(*) FILTER (WHERE outcome = 'correct') AS correct
    FROM requests GROUP BY run_id
) USING (run_id)
WHERE run_id IN (SELECT unnest($1::VARCHAR[])) ORDER BY started_at NULLS FIRST, run_id
"""
"""The list of runs: counts only, so that it is fast however many requests there are."""
