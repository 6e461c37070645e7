BEGIN TRANSACTION;
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
INSERT INTO "dkim_key" VALUES('news.src.test','e1','rsa-sha256','cHVibGlj','retiring',1800000060.0,1800000000.0,'');
INSERT INTO "dkim_key" VALUES('news.src.test','e2','ed25519-sha256','cHVibGlj','retired',1800000060.0,1800000000.0,'');
INSERT INTO "dkim_key" VALUES('news.src.test','r1','rsa-sha256','cHVibGlj','pending',1800000060.0,1800000000.0,'');
INSERT INTO "dkim_key" VALUES('news.src.test','r2','ed25519-sha256','cHVibGlj','active',1800000060.0,1800000000.0,'');
CREATE TABLE domain (              -- core/domain
  name         TEXT PRIMARY KEY,   -- A-labels
  subdomains   INTEGER NOT NULL,
  streams      TEXT NOT NULL,      -- JSON list; empty: any
  return_path  TEXT NOT NULL,      -- '' is none
  unsigned     TEXT NOT NULL CHECK (unsigned IN ('refuse', 'send'))
) STRICT, WITHOUT ROWID;
INSERT INTO "domain" VALUES('news.src.test',1,'["bulk"]','bounces.src.test','send');
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
INSERT INTO "host" VALUES('mx1.test',25,'',1,1800000000.0,1800000000.0,1800000060.0,'none of its addresses is any good','ordinary',0.0,'',0.0);
INSERT INTO "host" VALUES('mx1.test',25,'192.0.2.1',2,1800000000.0,1800000060.0,1800000180.0,'Connection refused','ordinary',0.0,'',0.0);
INSERT INTO "host" VALUES('mx2.test',25,'2001:db8::1',0,0.0,1800000000.0,1800000600.0,'','ordinary',0.0,'',0.0);
INSERT INTO "host" VALUES('mx3.test',25,'192.0.2.3',0,0.0,0.0,0.0,'','small',1800000000.0,'',0.0);
INSERT INTO "host" VALUES('mx4.test',2525,'192.0.2.4',0,0.0,0.0,0.0,'','doubted',1800000000.0,'the TLS handshake failed',0.0);
INSERT INTO "host" VALUES('mx5.test',25,'192.0.2.5',0,0.0,0.0,0.0,'','clear',1800000000.0,'alert',0.0);
INSERT INTO "host" VALUES('mx6.test',25,'192.0.2.6',0,0.0,0.0,0.0,'','ordinary',0.0,'',1800000000.0);
CREATE TABLE volume (              -- recipients by the hour, for 24 hours: core/limits/day
  domain    TEXT NOT NULL,
  provider  TEXT NOT NULL,
  hour      INTEGER NOT NULL,      -- that was counted last, since the epoch
  counts    BLOB NOT NULL CHECK (length(counts) = 96),
  told      REAL NOT NULL,         -- seconds since the epoch; 0: never
  PRIMARY KEY (domain, provider)
) STRICT, WITHOUT ROWID;
INSERT INTO "volume" VALUES('src.test','google',500000,X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F202122232425262728292A2B2C2D2E2F303132333435363738393A3B3C3D3E3F404142434445464748494A4B4C4D4E4F505152535455565758595A5B5C5D5E5F',1800000000.0);
COMMIT;
PRAGMA user_version = 2;
