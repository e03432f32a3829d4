-- Which model an answer says it is of, and what the server says of its own make.
ALTER TABLE requests ADD COLUMN answered_by VARCHAR;
ALTER TABLE requests ADD COLUMN fingerprint VARCHAR;
