ALTER TABLE requests ADD COLUMN thinking_tokens BIGINT;
ALTER TABLE runs ADD COLUMN api VARCHAR;
ALTER TABLE runs ADD COLUMN server_kind VARCHAR;
ALTER TABLE runs ADD COLUMN quantization VARCHAR;
ALTER TABLE runs ADD COLUMN parameters BIGINT;
ALTER TABLE runs ADD COLUMN context_tokens BIGINT;
ALTER TABLE runs ADD COLUMN server_slots BIGINT;
UPDATE runs SET api = coalesce(config ->> 'api', 'ollama');
