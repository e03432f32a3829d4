-- What the system says of the machine in the last second: waits for a processor, lost segments of all programs.
ALTER TABLE samples ADD COLUMN processor_pressure DOUBLE;
ALTER TABLE samples ADD COLUMN machine_resent_segments BIGINT;
ALTER TABLE samples ADD COLUMN machine_tcp_timeouts BIGINT;
ALTER TABLE samples ADD COLUMN machine_listen_drops BIGINT;
