-- What a credential may ask for: RFC 6710 and RFC 4865.
BEGIN IMMEDIATE;
ALTER TABLE credential ADD COLUMN priority INTEGER;   -- the highest MT-PRIORITY; NULL: its stream's
ALTER TABLE credential ADD COLUMN hold REAL;          -- seconds, the longest HOLDFOR; NULL: none
PRAGMA user_version = 2;
COMMIT;
