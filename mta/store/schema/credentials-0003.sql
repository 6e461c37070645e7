-- To hold is what an operator does; what the sender asks for (RFC 4865) is a delay.
BEGIN IMMEDIATE;
ALTER TABLE credential RENAME COLUMN hold TO delay;   -- seconds, the longest HOLDFOR; NULL: none
PRAGMA user_version = 3;
COMMIT;
