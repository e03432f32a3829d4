CREATE TABLE runs (
    run_id VARCHAR PRIMARY KEY, config_hash VARCHAR, model VARCHAR, model_digest VARCHAR, server_version VARCHAR,
    suite VARCHAR, load_kind VARCHAR, concurrency BIGINT, rate DOUBLE, arrival VARCHAR, endpoint VARCHAR,
    structured VARCHAR, think VARCHAR, planned BIGINT, status VARCHAR, verdict VARCHAR, verdict_reason VARCHAR,
    label VARCHAR, embed_model VARCHAR, config JSON, environment JSON, owner VARCHAR, started_at TIMESTAMP,
    finished_at TIMESTAMP, forgotten BOOLEAN, goodput_limits JSON
);
CREATE INDEX runs_by_config ON runs (config_hash);
CREATE TABLE segments (
    run_id VARCHAR, segment BIGINT, started_at TIMESTAMP, finished_at TIMESTAMP, duration_s DOUBLE, planned BIGINT,
    workers BIGINT, status VARCHAR, model_load_s DOUBLE, warmup_requests BIGINT, simulated BOOLEAN,
    PRIMARY KEY (run_id, segment)
);
CREATE TABLE requests (
    run_id VARCHAR, config_hash VARCHAR, request_index BIGINT, parent_index BIGINT, turn BIGINT, segment BIGINT,
    worker BIGINT, case_id VARCHAR, repeat BIGINT, due_ns BIGINT, sent_ns BIGINT, end_ns BIGINT, ttft_s DOUBLE,
    ttft_due_s DOUBLE,
    first_thinking_s DOUBLE, first_answer_s DOUBLE, first_tool_call_s DOUBLE, itl_mean_s DOUBLE, tpot_s DOUBLE,
    e2e_s DOUBLE, e2e_due_s DOUBLE, send_lag_s DOUBLE, read_lag_max_s DOUBLE, connect_s DOUBLE, chunks BIGINT,
    chunk_offsets_us BIGINT[], merged_chunks BIGINT, clock VARCHAR, prompt_tokens BIGINT, output_tokens BIGINT,
    load_s DOUBLE, prompt_eval_s DOUBLE, eval_s DOUBLE, queue_s DOUBLE, server_tokens_per_s DOUBLE,
    client_tokens_per_s DOUBLE, done_reason VARCHAR, outcome VARCHAR, accuracy_score DOUBLE, json_valid BOOLEAN,
    json_valid_lenient BOOLEAN, json_source VARCHAR, json_parse_error VARCHAR, schema_valid BOOLEAN,
    schema_valid_lenient BOOLEAN, tool_call_success BOOLEAN, tool_call_accuracy DOUBLE, num_tool_calls BIGINT,
    validation_errors VARCHAR[], violated_keywords VARCHAR[], semantic_similarity DOUBLE, output_text VARCHAR,
    thinking_text VARCHAR, tool_calls JSON, error_kind VARCHAR, error_status BIGINT, error_message VARCHAR,
    PRIMARY KEY (run_id, request_index)
);
CREATE TABLE samples (
    run_id VARCHAR, segment BIGINT, sampled_at TIMESTAMP, t_s DOUBLE, client_cpu_percent DOUBLE,
    client_rss_bytes BIGINT, in_flight BIGINT, loop_lag_max_s DOUBLE, store_backlog BIGINT, server_size_bytes BIGINT,
    server_vram_bytes BIGINT, vram_share DOUBLE, workers BIGINT, model_expiry_s DOUBLE,
    PRIMARY KEY (run_id, segment, sampled_at)
);
CREATE TABLE features (
    server_version VARCHAR, model VARCHAR, model_digest VARCHAR, probe VARCHAR, endpoint VARCHAR, stream BOOLEAN,
    think VARCHAR, question VARCHAR, result VARCHAR, status BIGINT, evidence VARCHAR, example VARCHAR, seconds DOUBLE,
    server_address VARCHAR, probed_at TIMESTAMP,
    PRIMARY KEY (server_version, model, model_digest, probe)
);
CREATE TABLE run_gaps (
    run_id VARCHAR PRIMARY KEY, requests BIGINT, chunks BIGINT, gaps BIGINT, p50 DOUBLE, p90 DOUBLE, p95 DOUBLE,
    p99 DOUBLE, max DOUBLE
);
CREATE TABLE lookups (
    looked_up_at TIMESTAMP, config_hash VARCHAR, run_id VARCHAR, result VARCHAR,
    PRIMARY KEY (looked_up_at, config_hash)
);
