-- Sending domains and their keys, written by `mta domain` and by the daemon as keys rotate; and what each From
-- domain sends to each provider.
BEGIN IMMEDIATE;

CREATE TABLE domain (              -- core/domain
  name         TEXT PRIMARY KEY,   -- A-labels
  subdomains   INTEGER NOT NULL,
  streams      TEXT NOT NULL,      -- JSON list; empty: any
  return_path  TEXT NOT NULL,      -- '' is none
  unsigned     TEXT NOT NULL CHECK (unsigned IN ('refuse', 'send'))
) STRICT, WITHOUT ROWID;

CREATE TABLE dkim_key (            -- the secrets are files in keys/
  domain       TEXT NOT NULL,
  selector     TEXT NOT NULL,
  algorithm    TEXT NOT NULL CHECK (algorithm IN ('rsa-sha256', 'ed25519-sha256')),
  public       TEXT NOT NULL,      -- base64
  state        TEXT NOT NULL CHECK (state IN ('pending', 'active', 'retiring', 'retired')),
  since        REAL NOT NULL,      -- seconds since the epoch
  created      REAL NOT NULL,
  told         TEXT NOT NULL DEFAULT '',  -- the state that an event has told of
  PRIMARY KEY (domain, selector)
) STRICT, WITHOUT ROWID;

CREATE TABLE volume (              -- recipients by the hour, for 24 hours: core/limits/day
  domain    TEXT NOT NULL,
  provider  TEXT NOT NULL,
  hour      INTEGER NOT NULL,      -- that was counted last, since the epoch
  counts    BLOB NOT NULL CHECK (length(counts) = 96),
  told      REAL NOT NULL,         -- seconds since the epoch; 0: never
  PRIMARY KEY (domain, provider)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 2;
COMMIT;
