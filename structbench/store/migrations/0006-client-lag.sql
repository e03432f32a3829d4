-- By how much each request's times may be off through this client's own doing; NULL: not known, as in older rows.
ALTER TABLE requests ADD COLUMN ttft_off_s DOUBLE;
ALTER TABLE requests ADD COLUMN chunk_early_us BIGINT[];
ALTER TABLE requests ADD COLUMN processor_wait_s DOUBLE;
ALTER TABLE requests ADD COLUMN resent_segments BIGINT;
ALTER TABLE requests ADD COLUMN out_of_order_segments BIGINT;
