-- The queue. A message leaves when its last recipient does; the past is the event log.

CREATE TABLE meta (                  -- what the spool knows of itself
  name  TEXT PRIMARY KEY,
  value
) WITHOUT ROWID;

CREATE TABLE message (               -- immutable; the id encodes when it was received
  id          INTEGER PRIMARY KEY,
  sender      TEXT NOT NULL,
  tenant      TEXT NOT NULL,
  stream      TEXT NOT NULL,
  credential  TEXT NOT NULL,
  expires     REAL NOT NULL,         -- seconds since the epoch
  size        INTEGER NOT NULL,      -- octets
  message_id  TEXT NOT NULL,
  options     INTEGER NOT NULL
);
CREATE INDEX message_expires ON message (expires);

CREATE TABLE body (                  -- apart, so that it is removed late and in id order
  message     INTEGER PRIMARY KEY,
  content     BLOB                   -- NULL: a file in bodies/, named by the queue id
);
CREATE INDEX body_file ON body (message) WHERE content IS NULL;

CREATE TABLE recipient (
  message     INTEGER NOT NULL,
  n           INTEGER NOT NULL,      -- position in the envelope
  address     TEXT NOT NULL,
  domain      TEXT NOT NULL,
  tenant      TEXT NOT NULL,
  state       INTEGER NOT NULL,      -- core/lifecycle
  attempts    INTEGER NOT NULL,
  due         REAL,                  -- NULL while the first attempt is under way
  PRIMARY KEY (message, n)
) WITHOUT ROWID;
CREATE INDEX recipient_due ON recipient (domain, due) WHERE due IS NOT NULL;

CREATE TABLE outbox (                -- one row a commit: what the event log does not have yet
  seq         INTEGER PRIMARY KEY,   -- of the first line
  lines       BLOB NOT NULL,
  finished    TEXT NOT NULL          -- JSON list of message ids whose bodies go when the lines are out
);
