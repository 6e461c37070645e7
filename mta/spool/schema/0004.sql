-- What branches have learned, in columns: as a list in JSON it was read by position. As many as are kept.
CREATE TABLE branch (                -- how fast each takes mail, as far as we have learned: core/limits/adaptive
  name        TEXT PRIMARY KEY,      -- a provider or a site, and the source
  rate        REAL NOT NULL,         -- recipients a second; infinity is no limit
  rate_mark   REAL NOT NULL,
  connections REAL NOT NULL,
  connections_mark REAL NOT NULL,
  messages_per_connection INTEGER,   -- NULL: no limit that we know
  at          REAL NOT NULL,         -- when it was used last, to the hour; seconds since the epoch
  until       REAL NOT NULL,         -- nothing goes before
  reason      TEXT NOT NULL,         -- for that
  barred      INTEGER NOT NULL,      -- the peer wants none of this source
  tenants     TEXT NOT NULL          -- suspended there: JSON, [[tenant, until, reason], ...]
) WITHOUT ROWID;
INSERT OR IGNORE INTO branch               -- what is not as it was written is left
  SELECT name, said ->> '$[0][0]', said ->> '$[0][1]', said ->> '$[0][2]', said ->> '$[0][3]',
    said ->> '$[0][4]', said ->> '$[1]', said ->> '$[2]', said ->> '$[3]', said ->> '$[4]', '[]'
  FROM (
    -- Infinity is Python's, and no JSON
    SELECT name, replace(learned, 'Infinity', '9e999') AS said FROM path
    WHERE json_valid(said) ORDER BY updated DESC LIMIT 10000
  );
DROP TABLE path;
