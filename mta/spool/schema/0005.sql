-- What a message carries beside its content, of those that do.
ALTER TABLE message ADD COLUMN tags TEXT;       -- JSON list
ALTER TABLE message ADD COLUMN score INTEGER;   -- 0 to 100
ALTER TABLE message ADD COLUMN body_hash BLOB;  -- SHA-256 of it in relaxed canonical form (RFC 6376 3.4.4)
ALTER TABLE message ADD COLUMN return_path TEXT;  -- the domain that its bounces go to
ALTER TABLE message ADD COLUMN metadata TEXT;   -- JSON object
