-- How long the server was away before this part of a run, for which a closed loop waited.
ALTER TABLE segments ADD COLUMN away_s DOUBLE;
