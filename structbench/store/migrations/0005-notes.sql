-- What a run's rows say of the server and the workload, in words; the verdict is of the client.
CREATE TABLE notes (run_id VARCHAR, kind VARCHAR, share DOUBLE, at_s DOUBLE, text VARCHAR);
