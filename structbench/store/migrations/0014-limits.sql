ALTER TABLE requests ADD COLUMN retry_after_s DOUBLE;
ALTER TABLE segments ADD COLUMN token_limit BIGINT;
ALTER TABLE runs ADD COLUMN metadata JSON;
