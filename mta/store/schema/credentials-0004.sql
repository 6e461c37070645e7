-- A credential may name several streams; mail that names none is of the first.
BEGIN IMMEDIATE;
ALTER TABLE credential RENAME COLUMN stream TO streams;   -- JSON list
UPDATE credential SET streams = json_array(streams);
PRAGMA user_version = 4;
COMMIT;
