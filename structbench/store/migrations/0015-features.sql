-- Several servers of one version may do different things, by how they were started: the address is in the key.
CREATE TEMP TABLE kept_features AS SELECT * REPLACE (coalesce(server_address, '') AS server_address) FROM features;
DROP TABLE features;
CREATE TABLE features (
    server_version VARCHAR, model VARCHAR, model_digest VARCHAR, probe VARCHAR, endpoint VARCHAR, stream BOOLEAN,
    think VARCHAR, question VARCHAR, result VARCHAR, status BIGINT, evidence VARCHAR, example VARCHAR, seconds DOUBLE,
    server_address VARCHAR, probed_at TIMESTAMP, api VARCHAR, server_kind VARCHAR,
    PRIMARY KEY (server_version, server_address, model, model_digest, probe)
);
INSERT INTO features SELECT *, CASE endpoint WHEN 'v1' THEN 'openai' ELSE 'ollama' END, 'ollama' FROM kept_features;
DROP TABLE kept_features;
