-- How many requests and seconds were asked for left the identity, and are columns.
DROP INDEX runs_by_config;
ALTER TABLE runs ADD COLUMN asked_requests BIGINT;
ALTER TABLE runs ADD COLUMN asked_duration_s DOUBLE;
UPDATE runs SET asked_requests = (config ->> '$.requests')::BIGINT,
    asked_duration_s = (config ->> '$.load.duration_s')::DOUBLE;
UPDATE runs SET config_hash = identities.after, config = identities.config
FROM identities WHERE runs.config_hash = identities.before;
CREATE INDEX runs_by_config ON runs (config_hash);
UPDATE requests SET config_hash = identities.after FROM identities WHERE requests.config_hash = identities.before;
CREATE TEMP TABLE looked_up AS
SELECT DISTINCT ON (looked_up_at, config_hash) * FROM (
    SELECT lookups.* REPLACE (coalesce(identities.after, config_hash) AS config_hash)
    FROM lookups LEFT JOIN identities ON lookups.config_hash = identities.before
);
DROP TABLE lookups;
CREATE TABLE lookups (
    looked_up_at TIMESTAMP, config_hash VARCHAR, run_id VARCHAR, result VARCHAR,
    PRIMARY KEY (looked_up_at, config_hash)
);
INSERT INTO lookups FROM looked_up;
DROP TABLE looked_up;
DROP TABLE identities;
