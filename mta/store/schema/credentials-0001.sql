-- Who may submit. Written by `mta credential`, read by the daemon.
BEGIN IMMEDIATE;

CREATE TABLE IF NOT EXISTS credential (   -- core/credential
  login         TEXT PRIMARY KEY,
  kind          TEXT NOT NULL CHECK (kind IN ('password', 'key', 'network')),
  verifier      TEXT NOT NULL,            -- argon2id of a password, SHA-256 of a key, '' of a network
  tenant        TEXT NOT NULL,
  stream        TEXT NOT NULL,
  senders       TEXT NOT NULL,            -- JSON list of patterns
  networks      TEXT NOT NULL,            -- JSON list of CIDR
  message_size  INTEGER,                  -- octets
  recipients    INTEGER,                  -- per message
  rate_amount   INTEGER,                  -- recipients
  rate_period   REAL,                     -- seconds
  notify        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 1;
COMMIT;
