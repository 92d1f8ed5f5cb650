-- From layout 1 to 2: accounts know when their window ends; what has ended of runs is in a table of
-- its own, which comes with them.

ALTER TABLE accounts DROP COLUMN closed;
ALTER TABLE accounts ADD COLUMN ends_s INTEGER;
-- A day or a month has ended after forty days; the next lease sets the true end.
UPDATE accounts SET ends_s = start_s + 3456000 WHERE start_s > 0;
CREATE INDEX accounts_end ON accounts (ends_s) WHERE ends_s IS NOT NULL;
-- Which accounts are of runs, the configuration knows.
INSERT INTO meta (name, value) VALUES ('runs_to_adopt', 'yes');
