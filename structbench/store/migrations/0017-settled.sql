-- What the looks at a load that went on until its rule was decided left open; NULL: how much to ask was given.
ALTER TABLE runs ADD COLUMN settled JSON;
