-- Who goes first: RFC 6710. What waits is looked up by all three: nobody's mail stands behind another's.
ALTER TABLE message ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;    -- -9 to 9
ALTER TABLE recipient ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;  -- as its message's
DROP INDEX recipient_due;
CREATE INDEX recipient_due ON recipient (domain, priority, tenant, due) WHERE due IS NOT NULL;

CREATE TABLE path (                  -- how fast each path takes mail, as far as we have learned
  name        TEXT PRIMARY KEY,      -- a provider or a site
  learned     TEXT NOT NULL,         -- JSON, core/adaptive
  updated     REAL NOT NULL          -- seconds since the epoch
) WITHOUT ROWID;
