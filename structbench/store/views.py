"""The views for people who write SQL; docs/store.md describes each column.

Invariant: percentiles are over completed requests, interpolated linearly; what cannot be computed is NULL.
"""

from __future__ import annotations

from collections.abc import Mapping

from structbench.metrics import PERCENTILES, gaps_sql

_LOAD = (
    "CASE WHEN rate IS NOT NULL THEN format('rate={:g}/s ', rate) || coalesce(arrival, '')"
    " WHEN concurrency IS NOT NULL THEN 'c=' || concurrency ELSE load_kind END"
)


_KEPT = {**PERCENTILES, "max": 1.0}


def gap_percentiles_of(run_ids: str, ps: Mapping[str, float] = _KEPT) -> str:
    """SQL: percentiles (column -> quantile) of all gaps of each of these runs (a subquery with the column ``run_id``).

    A join, not IN: then offsets are read of these runs only.
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

# Tens of millions of gaps take seconds, so a complete run keeps its percentiles, with how many requests and chunks
# they are of: once these differ (an import, a removal, a row put in by hand) they are computed as for any other run.
_GAPS = f"""
CREATE OR REPLACE VIEW kept_gaps AS
SELECT run_id, gaps, p50, p90, p95, p99, max
FROM run_gaps JOIN runs USING (run_id) JOIN ({ROWS_OF_RUNS}) AS now USING (run_id, requests, chunks)
WHERE status = 'complete';
CREATE OR REPLACE VIEW gap_percentiles AS
FROM kept_gaps UNION ALL BY NAME FROM (
    {gap_percentiles_of("SELECT DISTINCT run_id FROM requests ANTI JOIN kept_gaps USING (run_id)")}
);
"""

GAPS_TO_KEEP = f"""
SELECT * FROM ({gap_percentiles_of("SELECT $1 AS run_id")}) JOIN ({ROWS_OF_RUNS}) USING (run_id)
"""
"""The row of ``run_gaps`` of one run."""

# Of a segment that was interrupted only the requests that are kept count, and the time that they took: what was
# cancelled is sent again in the next.
_DURATIONS = """
CREATE OR REPLACE VIEW run_durations AS
SELECT run_id, sum(
        CASE WHEN s.status = 'interrupted' THEN seen.duration_s ELSE coalesce(s.duration_s, seen.duration_s) END
    ) AS duration_s,
    max(s.model_load_s) AS model_load_s
FROM segments AS s FULL JOIN (
    SELECT run_id, segment, (max(end_ns) - min(coalesce(due_ns, sent_ns))) / 1e9 AS duration_s
    FROM requests GROUP BY run_id, segment
) AS seen USING (run_id, segment)
GROUP BY run_id;
"""

# The limits as they were when this was released.
_LIMITED = ("ttft_s", "ttft_due_s", "itl_mean_s", "tpot_s", "e2e_s", "e2e_due_s")
_LIMITS = ", ".join(f"(goodput_limits ->> '$.{column}')::DOUBLE AS max_{column}" for column in _LIMITED)
_GOOD = " AND ".join(
    f"({column} <= max_{column} OR max_{column} IS NULL{f' OR {column} IS NULL' if i in (2, 3) else ''})"
    for i, column in enumerate(_LIMITED)
)

_SUMMARY = f"""
CREATE OR REPLACE VIEW summary AS
WITH limits AS (
    SELECT run_id, goodput_limits IS NOT NULL AS limited, {_LIMITS} FROM runs
), figures AS (
    SELECT run_id, count(*) AS requests, count(error_kind) AS errors,
        count(*) FILTER (WHERE error_kind IS NULL) AS completed,
        count(*) FILTER (WHERE error_kind = 'dropped') AS dropped,
        quantile_cont(ttft_s, [0.5, 0.95, 0.99]) FILTER (WHERE error_kind IS NULL) AS ttft,
        median(tpot_s) FILTER (WHERE error_kind IS NULL) AS tpot_p50_s,
        quantile_cont(e2e_s, [0.5, 0.95]) FILTER (WHERE error_kind IS NULL) AS e2e,
        median(client_tokens_per_s) FILTER (WHERE error_kind IS NULL) AS stream_tokens_per_s,
        (sum(output_tokens) FILTER (WHERE error_kind IS NULL))::BIGINT AS output_tokens,
        count(accuracy_score) AS scored, count(json_valid) AS json_scored, count(schema_valid) AS schema_scored,
        count(tool_call_accuracy) AS tool_calls_scored,
        avg(json_valid::BIGINT) AS json_valid, avg(schema_valid::BIGINT) AS schema_valid,
        avg(tool_call_accuracy) AS tool_call_accuracy, avg(accuracy_score) AS accuracy,
        avg(semantic_similarity) AS semantic_similarity,
        CASE WHEN count(accuracy_score) > 0 THEN count(*) FILTER (WHERE outcome = 'correct') END AS correct,
        CASE WHEN count(accuracy_score) > 0 THEN
            count(*) FILTER (WHERE outcome = 'correct' AND error_kind IS NULL AND {_GOOD}) END AS correct_and_good,
        CASE WHEN bool_or(limited) THEN count(*) FILTER (WHERE error_kind IS NULL AND {_GOOD}) END AS good
    FROM requests LEFT JOIN limits USING (run_id) GROUP BY run_id
)
SELECT run_id, model, suite, structured, {_LOAD} AS load, planned, coalesce(requests, 0) AS requests,
    coalesce(errors, 0) AS errors, coalesce(completed, 0) AS completed, coalesce(dropped, 0) AS dropped,
    ttft[1] AS ttft_p50_s, ttft[2] AS ttft_p95_s, ttft[3] AS ttft_p99_s,
    g.p50 AS itl_p50_s, g.p99 AS itl_p99_s, tpot_p50_s, stream_tokens_per_s,
    output_tokens / nullif(duration_s, 0) AS tokens_per_s, completed / nullif(duration_s, 0) AS requests_per_s,
    e2e[1] AS e2e_p50_s, e2e[2] AS e2e_p95_s, json_valid, schema_valid, tool_call_accuracy, accuracy,
    correct, correct_and_good / nullif(duration_s, 0) AS correct_goodput,
    good / nullif(duration_s, 0) AS goodput, goodput_limits, scored, json_scored, schema_scored, tool_calls_scored,
    semantic_similarity, output_tokens, duration_s, model_load_s,
    status, verdict, verdict_reason, label, config_hash, started_at, finished_at
FROM runs LEFT JOIN figures USING (run_id) LEFT JOIN gap_percentiles AS g USING (run_id)
    LEFT JOIN run_durations USING (run_id);
"""

_ADJUSTED = "'ttft_s', 'ttft_due_s', 'first_answer_s', 'tpot_s', 'itl_mean_s', 'e2e_s', 'e2e_due_s'"
_METRICS = (
    "ttft_s, ttft_due_s, first_thinking_s, first_answer_s, first_tool_call_s, itl_mean_s, tpot_s, e2e_s, e2e_due_s,"
    " send_lag_s, read_lag_max_s, connect_s, load_s, prompt_eval_s, eval_s, queue_s"
)

# Infinity would turn an interpolation into NaN; a number beyond any latency does not.
_PERCENTILES = f"""
CREATE OR REPLACE VIEW latency_percentiles AS
WITH long AS (
    SELECT * FROM (SELECT run_id, error_kind, {_METRICS} FROM requests)
    UNPIVOT INCLUDE NULLS (value FOR metric IN ({_METRICS}))
), counted AS (
    SELECT run_id, metric, adjusted, CASE
        WHEN error_kind IS NULL THEN value
        WHEN adjusted AND error_kind <> 'cancelled' THEN 1e300 END AS value
    FROM long CROSS JOIN (VALUES (false), (true)) AS t(adjusted)
    WHERE NOT adjusted OR metric IN ({_ADJUSTED})
), figures AS (
    SELECT run_id, metric, adjusted, count(value) AS n,
        quantile_cont(value, [0.5, 0.9, 0.95, 0.99, 1.0]) AS q
    FROM counted GROUP BY run_id, metric, adjusted HAVING count(value) > 0
), points AS (
    SELECT run_id, metric, adjusted, n,
        [CASE WHEN x > 1e280 THEN 'infinity'::DOUBLE ELSE x END FOR x IN q] AS q
    FROM figures
)
SELECT run_id, metric, adjusted, n, q[1] AS p50, q[2] AS p90, q[3] AS p95, q[4] AS p99, q[5] AS max FROM points
UNION ALL BY NAME
SELECT run_id, 'itl_s' AS metric, false AS adjusted, gaps AS n, p50, p90, p95, p99, max FROM gap_percentiles;
"""

_OUTCOMES = f"""
CREATE OR REPLACE VIEW outcomes AS
SELECT run_id, model, suite, {_LOAD} AS load, outcome, count(*) AS count,
    count(*) / sum(count(*)) OVER (PARTITION BY run_id) AS share
FROM requests JOIN runs USING (run_id)
GROUP BY run_id, model, suite, load, outcome;
"""

_CONVERSATIONS = """
CREATE OR REPLACE VIEW conversations AS
SELECT one.run_id, one.request_index, one.case_id, one.outcome AS call_outcome, two.outcome AS final_outcome,
    coalesce(two.outcome = 'correct', false) AS correct, one.ttft_s, two.ttft_s AS final_ttft_s,
    CASE WHEN two.error_kind IS NULL THEN (two.end_ns - one.sent_ns) / 1e9 END AS e2e_s
FROM requests AS one LEFT JOIN requests AS two ON two.run_id = one.run_id AND two.parent_index = one.request_index
WHERE one.turn = 1;
"""

_ERRORS = f"""
CREATE OR REPLACE VIEW errors AS
SELECT run_id, model, suite, {_LOAD} AS load, error_kind, error_status, count(*) AS count,
    any_value(error_message) AS example
FROM requests JOIN runs USING (run_id)
WHERE error_kind IS NOT NULL
GROUP BY run_id, model, suite, load, error_kind, error_status;
"""

# The run's columns first: a row of one file of several must say what it is of.
_EXPORTED = f"""
CREATE OR REPLACE VIEW exported AS
SELECT run_id, label, model, model_digest, server_version, suite, {_LOAD} AS load, load_kind, concurrency, rate,
    arrival, endpoint, structured, think, status, verdict, started_at, requests.* EXCLUDE (run_id)
FROM requests JOIN runs USING (run_id);
"""

RUN_LIST = f"""
SELECT run_id, model, suite, {_LOAD} AS load, started_at, finished_at, planned, coalesce(requests, 0) AS requests,
    coalesce(errors, 0) AS errors, scored, correct, status, verdict, verdict_reason, label, server_version, config_hash,
    coalesce(forgotten, false) AS forgotten
FROM runs LEFT JOIN (
    SELECT run_id, count(*) AS requests, count(error_kind) AS errors, count(accuracy_score) AS scored,
        count(*) FILTER (WHERE outcome = 'correct') AS correct
    FROM requests GROUP BY run_id
) USING (run_id)
WHERE run_id IN (SELECT unnest($1::VARCHAR[])) ORDER BY started_at NULLS FIRST, run_id
"""
"""What a list of runs shows: counts only, so that it comes at once however many requests there are."""

# Means, because the parts then add up to the whole.
_DECOMPOSITION = f"""
CREATE OR REPLACE VIEW decomposition AS
SELECT run_id, request_index, model, suite, {_LOAD} AS load, case_id, ttft_due_s, send_lag_s, connect_s,
    coalesce(load_s, 0) AS load_s, prompt_eval_s,
    ttft_due_s - send_lag_s - connect_s - coalesce(load_s, 0) - prompt_eval_s AS rest_s
FROM requests JOIN runs USING (run_id)
WHERE error_kind IS NULL AND ttft_due_s IS NOT NULL AND prompt_eval_s IS NOT NULL;
CREATE OR REPLACE VIEW run_decomposition AS
SELECT run_id, model, suite, load, count(*) AS requests, avg(ttft_due_s) AS ttft_due_s, avg(send_lag_s) AS send_lag_s,
    avg(connect_s) AS connect_s, avg(load_s) AS load_s, avg(prompt_eval_s) AS prompt_eval_s, avg(rest_s) AS rest_s
FROM decomposition GROUP BY run_id, model, suite, load;
"""

# JSONSchemaBench's rates (arXiv 2501.10868), for any cases with a schema.
_COMPLIANCE = f"""
CREATE OR REPLACE VIEW compliance AS
WITH counted AS (
    SELECT run_id, count(schema_valid) AS judged,
        count(schema_valid) FILTER (WHERE outcome = 'rejected') AS rejected,
        count(schema_valid) FILTER (WHERE outcome = 'no_output') AS no_output,
        count(schema_valid) FILTER (WHERE outcome = 'truncated') AS truncated,
        count(schema_valid) FILTER (WHERE outcome = 'invalid_json') AS invalid_json,
        count(schema_valid) FILTER (WHERE outcome = 'schema_violation') AS violated,
        count(*) FILTER (WHERE schema_valid) AS valid, count(*) FILTER (WHERE outcome = 'unscored') AS unscored
    FROM requests GROUP BY run_id
)
SELECT run_id, model, suite, {_LOAD} AS load, structured, judged, rejected, no_output, truncated, invalid_json,
    violated, valid, unscored, (judged - rejected) / nullif(judged, 0) AS declared,
    valid / nullif(judged, 0) AS empirical, valid / nullif(judged - rejected, 0) AS compliance
FROM counted JOIN runs USING (run_id)
WHERE judged > 0 OR (unscored > 0 AND structured <> 'none');
"""

_VIOLATIONS = f"""
CREATE OR REPLACE VIEW violations AS
SELECT run_id, model, suite, {_LOAD} AS load, keyword, count(*) AS count,
    count(*) / any_value(judged) AS share, arg_min(case_id, request_index) AS example
FROM (
    SELECT run_id, case_id, request_index, unnest(violated_keywords) AS keyword
    FROM requests WHERE outcome = 'schema_violation'
) JOIN (SELECT run_id, count(schema_valid) AS judged FROM requests GROUP BY run_id) USING (run_id)
    JOIN runs USING (run_id)
GROUP BY run_id, model, suite, load, keyword;
"""

VIEWS = (
    _GAPS + _DURATIONS + _SUMMARY + _PERCENTILES + _OUTCOMES + _CONVERSATIONS + _ERRORS + _DECOMPOSITION + _EXPORTED
    + _COMPLIANCE + _VIOLATIONS
)  # fmt: skip
