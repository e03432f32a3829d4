-- Whether a token count is of the whole stream and of no more. Figures that cannot be had are absent in old rows too: of
-- chunks that came together in small steps, of counts of something else, of durations that are not the request's,
-- of answers in which nothing came.
ALTER TABLE requests ADD COLUMN covered BOOLEAN;
UPDATE requests SET gathered_chunks = found.gathered
FROM (
    SELECT run_id, request_index, any_value(merged) AS merged,
        arg_max(greatest(0, len(near) - coalesce(merged, 0)), near_us) AS gathered
    FROM (
        SELECT run_id, request_index, came, merged, near_us,
            [gap FOR gap IN [came[i + 1] - came[i] FOR i IN range(1, len(came))] IF gap <= near_us] AS near,
            came[-1] - came[1] AS span_us
        FROM (
            SELECT run_id, request_index, chunk_offsets_us AS came, merged_chunks AS merged
            FROM requests WHERE len(chunk_offsets_us) > 2
        ) CROSS JOIN (VALUES (1000), (300)) AS steps(near_us)
    )
    WHERE len(near) > 0 AND len(came) - len(near) > 1
        AND span_us / (len(came) - len(near) - 1) > greatest(3000, 10 * near_us) AND list_sum(near) <= span_us / 3
    GROUP BY run_id, request_index
) AS found
WHERE requests.run_id = found.run_id AND requests.request_index = found.request_index;
DELETE FROM run_gaps WHERE run_id IN (
    SELECT run_id FROM requests WHERE gathered_chunks > 0.2 * chunks AND itl_mean_s IS NOT NULL
);
UPDATE requests SET itl_mean_s = NULL, tpot_s = NULL, client_tokens_per_s = NULL
WHERE gathered_chunks > 0.2 * chunks AND (itl_mean_s IS NOT NULL OR tpot_s IS NOT NULL);
UPDATE requests SET
    covered = found.chunks <= output_tokens AND NOT (overcounted OR second_pass),
    tpot_s = CASE WHEN NOT (overcounted OR second_pass OR lumped) THEN tpot_s END,
    client_tokens_per_s = CASE WHEN NOT (overcounted OR second_pass OR lumped) THEN client_tokens_per_s END,
    server_tokens_per_s = CASE WHEN NOT (overcounted OR unlikely) THEN server_tokens_per_s END,
    queue_s = CASE WHEN NOT (overcounted OR second_pass OR unlikely) THEN queue_s END
FROM (
    SELECT *, chunks < 8 AND streamed - ended > 8 * chunks AND (coalesce(eval_s, 0) = 0 OR unlikely) AS lumped,
        bytes BETWEEN 1 AND streamed - 17 AS overcounted
    FROM (
        SELECT run_id, request_index, chunks, eval_s, coalesce(done_reason = 'stop', false)::BIGINT AS ended,
            coalesce(thinking_tokens > 0 AND first_thinking_s IS NULL
                AND NOT regexp_matches(coalesce(output_text, ''), '^<(think|thought)'), false)
                OR coalesce(thinking_partial, false) AS hidden,
            output_tokens - CASE WHEN hidden THEN coalesce(nullif(thinking_tokens, 0), output_tokens) ELSE 0 END
                AS streamed,
            strlen(coalesce(output_text, '')) + strlen(coalesce(thinking_text, ''))
                + CASE WHEN len(coalesce(tool_calls::VARCHAR, '')) > 2 THEN strlen(tool_calls::VARCHAR) ELSE 0 END
                AS bytes,
            coalesce(eval_s > 0 AND first_thinking_s IS NOT NULL AND first_answer_s IS NOT NULL
                AND chunks <= output_tokens AND (chunk_offsets_us[-1] - chunk_offsets_us[1]) / 1e6 > 1.5 * eval_s + 0.1, false) AS second_pass,
            coalesce(eval_s < 5e-05 * (output_tokens - 1)
                OR coalesce(load_s, 0) + coalesce(prompt_eval_s, 0) + eval_s > 1.05 * e2e_s + 0.002, false) AS unlikely
        FROM requests WHERE output_tokens IS NOT NULL AND chunks IS NOT NULL
    )
) AS found
WHERE requests.run_id = found.run_id AND requests.request_index = found.request_index;
UPDATE requests SET e2e_s = NULL, e2e_due_s = NULL, queue_s = NULL
WHERE chunks = 0 AND error_kind IS NULL;
