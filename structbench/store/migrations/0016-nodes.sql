-- A load may be sent from several machines: which sent each request, and what each was and measured of itself.
ALTER TABLE requests ADD COLUMN node VARCHAR;
ALTER TABLE segments ADD COLUMN nodes BIGINT;
CREATE TABLE nodes (
    run_id VARCHAR, segment BIGINT, node VARCHAR, workers BIGINT, cores BIGINT, requests BIGINT, loop_lag_max_s DOUBLE,
    cpu_s DOUBLE, server_rtt_s DOUBLE, start_lag_s DOUBLE, clock_offset_ns BIGINT, clock_error_ns BIGINT,
    clock_drift_ppm DOUBLE, died BOOLEAN, PRIMARY KEY (run_id, segment, node)
);
