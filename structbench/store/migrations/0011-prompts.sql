-- How many tokens each prompt should have, to tell a prompt that was cut from one that was not; NULL in older rows.
ALTER TABLE requests ADD COLUMN asked_prompt_tokens BIGINT;
