-- What an earlier scorer said of a request, kept when `structbench rescore` replaces it.
CREATE TABLE old_scores (
    run_id VARCHAR, request_index BIGINT, scorer_version BIGINT, config_hash VARCHAR, rescored_at TIMESTAMP,
    error_kind VARCHAR, outcome VARCHAR, accuracy_score DOUBLE, json_valid BOOLEAN, json_valid_lenient BOOLEAN,
    json_source VARCHAR, json_parse_error VARCHAR, schema_valid BOOLEAN, schema_valid_lenient BOOLEAN,
    tool_call_success BOOLEAN, tool_call_accuracy DOUBLE, num_tool_calls BIGINT, validation_errors VARCHAR[],
    violated_keywords VARCHAR[], PRIMARY KEY (run_id, request_index, scorer_version)
);
