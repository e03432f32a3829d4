-- How long a stream could not send after an answer, by the server's doing, and how long an answer was asked to be.
ALTER TABLE requests ADD COLUMN held_s DOUBLE;
ALTER TABLE requests ADD COLUMN asked_output_tokens BIGINT;
