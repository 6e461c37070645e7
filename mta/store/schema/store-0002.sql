-- Sending domains and their keys. Written by `mta domain` and by the daemon as keys rotate.
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
  PRIMARY KEY (domain, selector)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 2;
COMMIT;
