-- What is remembered of receiving hosts. Written and read by the daemon alone.
BEGIN IMMEDIATE;

CREATE TABLE host (                -- core/route/hosts
  name       TEXT NOT NULL,
  port       INTEGER NOT NULL,
  address    TEXT NOT NULL,        -- numeric; '' is the host as a whole
  failures   INTEGER NOT NULL,
  since      REAL NOT NULL,        -- seconds since the epoch, as all times here
  tried      REAL NOT NULL,
  probe      REAL NOT NULL,
  why        TEXT NOT NULL,
  tls        TEXT NOT NULL CHECK (tls IN ('ordinary', 'small', 'doubted', 'clear')),
  tls_since  REAL NOT NULL,
  tls_why    TEXT NOT NULL,
  lost       REAL NOT NULL,
  PRIMARY KEY (name, port, address)
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 1;
COMMIT;
