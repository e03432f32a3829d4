-- Tokens of thinking that was not streamed are in no chunk: rows that were made before get the pace of what was.
ALTER TABLE requests ADD COLUMN thinking_partial BOOLEAN;
UPDATE requests SET tpot_s = paced.tpot_s, client_tokens_per_s = 1 / paced.tpot_s
FROM (
    SELECT run_id, request_index, CASE
        WHEN chunks <= streamed AND tokens > 1
            AND span_s >= 0.95 * coalesce(eval_s, 0) / output_tokens * (tokens - 1) - 0.002
        THEN span_s / (tokens - 1) END AS tpot_s
    FROM (
        SELECT *, streamed - (coalesce(done_reason, '') = 'stop' AND chunks < streamed)::BIGINT AS tokens
        FROM (
            SELECT run_id, request_index, chunks, output_tokens, eval_s, done_reason,
                output_tokens - thinking_tokens AS streamed,
                (chunk_offsets_us[-1] - chunk_offsets_us[1]) / 1e6 AS span_s
            FROM requests
            WHERE tpot_s IS NOT NULL AND thinking_tokens > 0 AND thinking_tokens <= output_tokens
                AND first_thinking_s IS NULL AND NOT regexp_matches(coalesce(output_text, ''), '^<(think|thought)')
        )
    )
) AS paced
WHERE requests.run_id = paced.run_id AND requests.request_index = paced.request_index;
