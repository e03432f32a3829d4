-- Which requests figures are of, and how much of each prompt the server had in its cache.
ALTER TABLE requests ADD COLUMN steady BOOLEAN;
ALTER TABLE requests ADD COLUMN ended_steady BOOLEAN;
ALTER TABLE requests ADD COLUMN cached_prompt_tokens BIGINT;
ALTER TABLE segments ADD COLUMN steady_from_ns BIGINT;
ALTER TABLE segments ADD COLUMN steady_to_ns BIGINT;
