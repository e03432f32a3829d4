-- The views as they are today, made anew in each file that is written and for each reading (docs/store.md lists their columns).

CREATE OR REPLACE VIEW kept_gaps AS
SELECT run_id, gaps, p50, p90, p95, p99, max
FROM run_gaps JOIN runs USING (run_id) JOIN (SELECT run_id, count(*) AS requests, sum(chunks) AS chunks FROM requests GROUP BY run_id) AS now USING (run_id, requests, chunks)
WHERE status = 'complete';
CREATE OR REPLACE VIEW gap_percentiles AS
FROM kept_gaps UNION ALL BY NAME FROM (
    
    WITH gaps AS (
    SELECT run_id, later - earlier AS gap_us, count(*)::BIGINT AS n FROM (
        SELECT run_id, unnest(chunk_offsets_us[1:-2]) AS earlier, unnest(chunk_offsets_us[2:]) AS later FROM requests JOIN (SELECT DISTINCT run_id FROM requests ANTI JOIN kept_gaps USING (run_id)) USING (run_id)
        WHERE error_kind IS NULL AND steady IS NOT FALSE AND len(chunk_offsets_us) > 1 AND NOT coalesce(gathered_chunks > 0.2 * chunks, false)
    ) GROUP BY ALL
    
    ), ranked AS (
        SELECT run_id, gap_us, (sum(n) OVER (PARTITION BY run_id ORDER BY gap_us))::BIGINT AS upto,
            (sum(n) OVER (PARTITION BY run_id))::BIGINT AS total
        FROM gaps
    ), around AS (
        SELECT run_id, p, any_value(total) AS gaps, any_value(p * (total - 1)) AS place,
            min(gap_us) FILTER (WHERE upto > floor(p * (total - 1))) AS low,
            min(gap_us) FILTER (WHERE upto > ceil(p * (total - 1))) AS high
        FROM ranked CROSS JOIN (VALUES (0.5::DOUBLE), (0.9::DOUBLE), (0.95::DOUBLE), (0.99::DOUBLE), (1.0::DOUBLE)) AS t(p)
        GROUP BY run_id, p
    ), points AS (
        SELECT run_id, p, gaps, (low + (high - low) * (place - floor(place))) / 1e6 AS gap_s FROM around
    )
    SELECT run_id, any_value(gaps) AS gaps, max(gap_s) FILTER (WHERE p = 0.5::DOUBLE) AS p50, max(gap_s) FILTER (WHERE p = 0.9::DOUBLE) AS p90, max(gap_s) FILTER (WHERE p = 0.95::DOUBLE) AS p95, max(gap_s) FILTER (WHERE p = 0.99::DOUBLE) AS p99, max(gap_s) FILTER (WHERE p = 1.0::DOUBLE) AS max
    FROM points GROUP BY run_id
    
);

CREATE OR REPLACE VIEW run_durations AS
SELECT run_id, duration_s, coalesce(steady_s, duration_s) AS rate_s, model_load_s FROM (
SELECT run_id, sum(
        CASE WHEN s.status = 'interrupted' THEN seen.duration_s ELSE coalesce(s.duration_s, seen.duration_s) END
    ) AS duration_s,
    sum((s.steady_to_ns - s.steady_from_ns) / 1e9) AS steady_s,
    max(s.model_load_s) AS model_load_s
FROM segments AS s FULL JOIN (
    SELECT run_id, segment, (max(end_ns) - min(coalesce(due_ns, sent_ns))) / 1e9 AS duration_s
    FROM requests GROUP BY run_id, segment
) AS seen USING (run_id, segment)
GROUP BY run_id
);

CREATE OR REPLACE VIEW summary AS
WITH limits AS (
    SELECT run_id, goodput_limits IS NOT NULL AS limited,
        try_cast(goodput_limits ->> '$.ttft_s' AS DOUBLE) AS max_ttft_s,
        try_cast(goodput_limits ->> '$.ttft_due_s' AS DOUBLE) AS max_ttft_due_s,
        try_cast(goodput_limits ->> '$.first_answer_s' AS DOUBLE) AS max_first_answer_s,
        try_cast(goodput_limits ->> '$.itl_mean_s' AS DOUBLE) AS max_itl_mean_s,
        try_cast(goodput_limits ->> '$.tpot_s' AS DOUBLE) AS max_tpot_s,
        try_cast(goodput_limits ->> '$.e2e_s' AS DOUBLE) AS max_e2e_s,
        try_cast(goodput_limits ->> '$.e2e_due_s' AS DOUBLE) AS max_e2e_due_s
    FROM runs
), judged AS (
    SELECT *, coalesce(chunks, 0) < 2 OR NOT coalesce(merged_chunks > 0, false)
            AND (coalesce(gathered_chunks >= chunks - 1, false)
                OR itl_mean_s IS NULL AND NOT coalesce(gathered_chunks > 0.2 * chunks, false)) AS came_whole,
        error_kind IS NULL AND NOT coalesce(chunks = 0, false) AND coalesce(ttft_s <= max_ttft_s, max_ttft_s IS NULL)
        AND coalesce(ttft_due_s <= max_ttft_due_s, max_ttft_due_s IS NULL)
        AND coalesce(first_answer_s <= max_first_answer_s, max_first_answer_s IS NULL OR first_tool_call_s IS NOT NULL)
        AND coalesce(itl_mean_s <= max_itl_mean_s, max_itl_mean_s IS NULL OR nullif(came_whole, false))
        AND coalesce(tpot_s <= max_tpot_s, max_tpot_s IS NULL OR nullif(came_whole, false))
        AND coalesce(e2e_s <= max_e2e_s, max_e2e_s IS NULL)
        AND coalesce(e2e_due_s <= max_e2e_due_s, max_e2e_due_s IS NULL) AS good,
        error_kind IS NULL AND steady IS NOT FALSE AS measured,
        error_kind IS NULL AND ended_steady IS NOT FALSE AND NOT coalesce(chunks = 0, false) AS counted,
        coalesce(covered, coalesce(chunks, 0) <= output_tokens, false) AS is_covered
    FROM requests JOIN limits USING (run_id)
), figures AS (
    SELECT run_id, count(*) AS requests, count(*) FILTER (WHERE error_kind NOT IN ('rejected', 'broken_call', 'truncated', 'cancelled')) AS errors,
        count(*) FILTER (WHERE error_kind = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE error_kind IS NULL) AS completed,
        count(*) FILTER (WHERE error_kind = 'dropped') AS dropped,
        count(first_thinking_s) FILTER (WHERE error_kind IS NULL) AS thinking,
        nullif(count(*) FILTER (WHERE steady), 0) AS steady,
        quantile_cont(ttft_s, [0.5, 0.95, 0.99]) FILTER (WHERE measured) AS ttft,
        quantile_cont(first_answer_s, [0.5, 0.95]) FILTER (WHERE measured) AS first_answer,
        median(tpot_s) FILTER (WHERE measured) AS tpot_p50_s,
        quantile_cont(e2e_s, [0.5, 0.95]) FILTER (WHERE measured) AS e2e,
        median(client_tokens_per_s) FILTER (WHERE measured) AS stream_tokens_per_s,
        count(*) FILTER (WHERE counted) AS completed_counted,
        CASE WHEN bool_and(is_covered) FILTER (WHERE counted)
            THEN (sum(output_tokens) FILTER (WHERE counted))::BIGINT END AS tokens_counted,
        CASE WHEN bool_and(is_covered) FILTER (WHERE error_kind IS NULL)
            THEN (sum(output_tokens) FILTER (WHERE error_kind IS NULL))::BIGINT END AS output_tokens,
        count(accuracy_score) AS scored, count(json_valid) AS json_scored, count(schema_valid) AS schema_scored,
        count(tool_call_accuracy) AS tool_calls_scored,
        avg(json_valid::BIGINT) AS json_valid, avg(schema_valid::BIGINT) AS schema_valid,
        avg(tool_call_accuracy) AS tool_call_accuracy, avg(accuracy_score) AS accuracy,
        avg(semantic_similarity) AS semantic_similarity,
        CASE WHEN count(accuracy_score) > 0 THEN count(*) FILTER (WHERE outcome = 'correct') END AS correct,
        CASE WHEN count(accuracy_score) > 0
            AND count(*) FILTER (WHERE outcome = 'correct' AND good IS NULL AND counted) = 0
            THEN count(*) FILTER (WHERE outcome = 'correct' AND good AND counted) END AS correct_and_good,
        CASE WHEN bool_or(limited) AND count(*) FILTER (WHERE good IS NULL AND counted) = 0
            THEN count(*) FILTER (WHERE good AND counted) END AS good
    FROM judged GROUP BY run_id
)
SELECT run_id, model, suite, structured,
    CASE WHEN rate IS NOT NULL THEN format('rate={:g}/s ', rate) || coalesce(arrival, '')
        WHEN concurrency IS NOT NULL THEN 'c=' || concurrency ELSE load_kind END AS load,
    planned, coalesce(requests, 0) AS requests,
    coalesce(errors, 0) AS errors, coalesce(completed, 0) AS completed, coalesce(dropped, 0) AS dropped,
    coalesce(thinking, 0) AS thinking, errors / nullif(requests - cancelled, 0) AS error_rate,
    ttft[1] AS ttft_p50_s, ttft[2] AS ttft_p95_s, ttft[3] AS ttft_p99_s,
    first_answer[1] AS first_answer_p50_s, first_answer[2] AS first_answer_p95_s,
    g.p50 AS itl_p50_s, g.p99 AS itl_p99_s, tpot_p50_s, stream_tokens_per_s,
    tokens_counted / nullif(rate_s, 0) AS tokens_per_s, completed_counted / nullif(rate_s, 0) AS requests_per_s,
    e2e[1] AS e2e_p50_s, e2e[2] AS e2e_p95_s, json_valid, schema_valid, tool_call_accuracy,
    tool_call_accuracy AS tool_calls_right, accuracy,
    correct, correct_and_good / nullif(rate_s, 0) AS correct_goodput,
    good / nullif(rate_s, 0) AS goodput, goodput_limits, scored, json_scored, schema_scored, tool_calls_scored,
    semantic_similarity, output_tokens, duration_s, rate_s, steady, model_load_s,
    status, verdict, verdict_reason, label, config_hash, started_at, finished_at,
    server_kind, config ->> '$.server_address' AS server_address, api, quantization, parameters, context_tokens,
    server_slots
FROM runs LEFT JOIN figures USING (run_id) LEFT JOIN gap_percentiles AS g USING (run_id)
    LEFT JOIN run_durations USING (run_id);

CREATE OR REPLACE VIEW latency_percentiles AS
WITH long AS (
    SELECT * FROM (SELECT run_id, error_kind, ttft_s, ttft_due_s, first_thinking_s, first_answer_s, first_tool_call_s, itl_mean_s, tpot_s, e2e_s, e2e_due_s, send_lag_s, read_lag_max_s, connect_s, load_s, prompt_eval_s, eval_s, queue_s FROM requests WHERE steady IS NOT FALSE)
    UNPIVOT INCLUDE NULLS (value FOR metric IN (ttft_s, ttft_due_s, first_thinking_s, first_answer_s, first_tool_call_s, itl_mean_s, tpot_s, e2e_s, e2e_due_s, send_lag_s, read_lag_max_s, connect_s, load_s, prompt_eval_s, eval_s, queue_s))
), counted AS (
    SELECT run_id, metric, adjusted, CASE
        WHEN error_kind IS NULL THEN value
        WHEN adjusted AND error_kind NOT IN ('rejected', 'broken_call', 'truncated', 'cancelled') THEN 1e300 END AS value
    FROM long CROSS JOIN (VALUES (false), (true)) AS t(adjusted)
    WHERE NOT adjusted OR metric IN ('ttft_s', 'ttft_due_s', 'first_answer_s', 'tpot_s', 'itl_mean_s', 'e2e_s', 'e2e_due_s')
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

CREATE OR REPLACE VIEW outcomes AS
SELECT run_id, model, suite, CASE WHEN rate IS NOT NULL THEN format('rate={:g}/s ', rate) || coalesce(arrival, '') WHEN concurrency IS NOT NULL THEN 'c=' || concurrency ELSE load_kind END AS load, outcome, count(*) AS count,
    count(*) / sum(count(*)) OVER (PARTITION BY run_id) AS share
FROM requests JOIN runs USING (run_id)
WHERE coalesce(error_kind <> 'cancelled', true)
GROUP BY run_id, model, suite, load, outcome;

CREATE OR REPLACE VIEW conversations AS
SELECT one.run_id, one.request_index, one.case_id, one.outcome AS call_outcome, two.outcome AS final_outcome,
    coalesce(two.outcome = 'correct', false) AS correct, one.ttft_s, two.ttft_s AS final_ttft_s,
    CASE WHEN two.error_kind IS NULL THEN (two.end_ns - one.sent_ns) / 1e9 END AS e2e_s
FROM requests AS one LEFT JOIN requests AS two ON two.run_id = one.run_id AND two.parent_index = one.request_index
WHERE one.turn = 1;

CREATE OR REPLACE VIEW errors AS
SELECT run_id, model, suite, CASE WHEN rate IS NOT NULL THEN format('rate={:g}/s ', rate) || coalesce(arrival, '') WHEN concurrency IS NOT NULL THEN 'c=' || concurrency ELSE load_kind END AS load, error_kind, error_status, count(*) AS count,
    any_value(error_message) AS example
FROM requests JOIN runs USING (run_id)
WHERE error_kind NOT IN ('rejected', 'broken_call', 'truncated', 'cancelled')
GROUP BY run_id, model, suite, load, error_kind, error_status;

CREATE OR REPLACE VIEW decomposition AS
SELECT run_id, request_index, model, suite, CASE WHEN rate IS NOT NULL THEN format('rate={:g}/s ', rate) || coalesce(arrival, '') WHEN concurrency IS NOT NULL THEN 'c=' || concurrency ELSE load_kind END AS load, case_id, ttft_due_s, send_lag_s, connect_s,
    coalesce(load_s, 0) AS load_s, prompt_eval_s,
    ttft_due_s - send_lag_s - connect_s - coalesce(load_s, 0) - prompt_eval_s AS rest_s
FROM requests JOIN runs USING (run_id)
WHERE error_kind IS NULL AND steady IS NOT FALSE AND ttft_due_s IS NOT NULL AND prompt_eval_s IS NOT NULL
    AND coalesce(covered, NOT chunks > output_tokens, true)
    AND NOT coalesce(eval_s < 5e-05 * (output_tokens - 1)
        OR coalesce(load_s, 0) + coalesce(prompt_eval_s, 0) + eval_s > 1.05 * e2e_s + 0.002, false);
CREATE OR REPLACE VIEW run_decomposition AS
SELECT run_id, model, suite, load, count(*) AS requests, avg(ttft_due_s) AS ttft_due_s, avg(send_lag_s) AS send_lag_s,
    avg(connect_s) AS connect_s, avg(load_s) AS load_s, avg(prompt_eval_s) AS prompt_eval_s, avg(rest_s) AS rest_s
FROM decomposition GROUP BY run_id, model, suite, load;

CREATE OR REPLACE VIEW exported AS
SELECT run_id, label, model, model_digest, server_kind, server_version, api, suite, CASE WHEN rate IS NOT NULL THEN format('rate={:g}/s ', rate) || coalesce(arrival, '') WHEN concurrency IS NOT NULL THEN 'c=' || concurrency ELSE load_kind END AS load, load_kind, concurrency, rate,
    arrival, endpoint, structured, think, status, verdict, started_at, requests.* EXCLUDE (run_id)
FROM requests JOIN runs USING (run_id);

CREATE OR REPLACE VIEW compliance AS
WITH counted AS (
    SELECT run_id, count(schema_valid) AS judged,
        count(schema_valid) FILTER (WHERE outcome = 'rejected') AS rejected,
        count(schema_valid) FILTER (WHERE outcome = 'broken_call') AS broken_call,
        count(schema_valid) FILTER (WHERE outcome = 'no_output') AS no_output,
        count(schema_valid) FILTER (WHERE outcome = 'truncated') AS truncated,
        count(schema_valid) FILTER (WHERE outcome = 'invalid_json') AS invalid_json,
        count(schema_valid) FILTER (WHERE outcome = 'schema_violation') AS violated,
        count(*) FILTER (WHERE schema_valid) AS valid, count(*) FILTER (WHERE outcome = 'unscored') AS unscored
    FROM requests GROUP BY run_id
)
SELECT run_id, model, suite, CASE WHEN rate IS NOT NULL THEN format('rate={:g}/s ', rate) || coalesce(arrival, '') WHEN concurrency IS NOT NULL THEN 'c=' || concurrency ELSE load_kind END AS load, structured, judged, rejected, broken_call, no_output, truncated, invalid_json,
    violated, valid, unscored, (judged - rejected) / nullif(judged, 0) AS declared,
    valid / nullif(judged, 0) AS empirical, valid / nullif(judged - rejected, 0) AS compliance
FROM counted JOIN runs USING (run_id)
WHERE judged > 0 OR (unscored > 0 AND structured <> 'none');

CREATE OR REPLACE VIEW violations AS
SELECT run_id, model, suite, CASE WHEN rate IS NOT NULL THEN format('rate={:g}/s ', rate) || coalesce(arrival, '') WHEN concurrency IS NOT NULL THEN 'c=' || concurrency ELSE load_kind END AS load, keyword, count(*) AS count,
    count(*) / any_value(judged) AS share, arg_min(case_id, request_index) AS example
FROM (
    SELECT run_id, case_id, request_index, unnest(violated_keywords) AS keyword
    FROM requests WHERE outcome = 'schema_violation'
) JOIN (SELECT run_id, count(schema_valid) AS judged FROM requests GROUP BY run_id) USING (run_id)
    JOIN runs USING (run_id)
GROUP BY run_id, model, suite, load, keyword;
