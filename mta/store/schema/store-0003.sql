-- What each From domain sends to each provider: recipients by the hour, for 24 hours.
BEGIN IMMEDIATE;

CREATE TABLE volume (              -- core/limits/day
  domain    TEXT NOT NULL,
  provider  TEXT NOT NULL,
  hour      INTEGER NOT NULL,      -- that was counted last, since the epoch
  counts    BLOB NOT NULL CHECK (length(counts) = 96),
  told      REAL NOT NULL,         -- seconds since the epoch; 0: never
  PRIMARY KEY (domain, provider)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 3;
COMMIT;
