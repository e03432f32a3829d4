-- What came together has no spacing, and a server's token count is not always of what it streamed. Rows that were made
-- before get the figures that follow from their chunks and counts today.
ALTER TABLE requests ADD COLUMN gathered_chunks BIGINT;
UPDATE requests SET gathered_chunks = 0;
UPDATE requests SET gathered_chunks = greatest(0, together - coalesce(merged_chunks, 0))
FROM (
    SELECT run_id, request_index, chunk_offsets_us AS came,
        len([1 FOR i IN range(1, len(chunk_offsets_us)) IF chunk_offsets_us[i + 1] - chunk_offsets_us[i] <= 100])
            AS together
    FROM requests WHERE len(chunk_offsets_us) > 1
) AS seen
WHERE requests.run_id = seen.run_id AND requests.request_index = seen.request_index AND together > 0
    AND 3000 < CASE WHEN together = len(came) - 1 THEN came[1] ELSE (came[-1] - came[1]) / (len(came) - together - 1) END;
UPDATE requests SET itl_mean_s = NULL WHERE gathered_chunks > 0.2 * chunks;
UPDATE requests SET queue_s = NULL WHERE chunks > output_tokens;
UPDATE requests SET tpot_s = paced.tpot_s, client_tokens_per_s = 1 / paced.tpot_s
FROM (
    SELECT run_id, request_index, CASE
        WHEN len(counted) > 1 AND tokens > 1 AND NOT gathered_chunks > 0.2 * chunks
            AND span_s > 0 AND span_s >= 0.95 * coalesce(eval_s, 0) / output_tokens * (tokens - 1) - 0.002
        THEN span_s / (tokens - 1) END AS tpot_s
    FROM (
        SELECT *, (counted[-1] - counted[1]) / 1e6 AS span_s,
            output_tokens - (done_reason = 'stop' AND len(counted) < output_tokens)::BIGINT AS tokens
        FROM (
            SELECT run_id, request_index, gathered_chunks, chunks, output_tokens, eval_s,
                coalesce(done_reason, '') AS done_reason, CASE
                    WHEN chunks <= output_tokens THEN chunk_offsets_us
                    WHEN first_thinking_s IS NOT NULL
                    THEN [o FOR o IN chunk_offsets_us IF o > first_answer_s * 1e6 - 0.9995] END AS counted
            FROM requests WHERE tpot_s IS NOT NULL
        )
        WHERE len(counted) <= output_tokens OR counted IS NULL
    )
) AS paced
WHERE requests.run_id = paced.run_id AND requests.request_index = paced.request_index;
DELETE FROM run_gaps WHERE run_id IN (SELECT run_id FROM requests WHERE gathered_chunks > 0.2 * chunks);
