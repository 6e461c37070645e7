BEGIN TRANSACTION;
CREATE TABLE credential (   -- core/credential
  login         TEXT PRIMARY KEY,
  kind          TEXT NOT NULL CHECK (kind IN ('password', 'key', 'network')),
  verifier      TEXT NOT NULL,            -- argon2id of a password, SHA-256 of a key, '' of a network
  tenant        TEXT NOT NULL,
  streams        TEXT NOT NULL,
  senders       TEXT NOT NULL,            -- JSON list of patterns
  networks      TEXT NOT NULL,            -- JSON list of CIDR
  message_size  INTEGER,                  -- octets
  recipients    INTEGER,                  -- per message
  rate_amount   INTEGER,                  -- recipients
  rate_period   REAL,                     -- seconds
  notify        INTEGER NOT NULL
, priority INTEGER, delay REAL) STRICT, WITHOUT ROWID;
INSERT INTO "credential" VALUES('key','key','7db30c6d9487e521a67c3e4c9be51ff1a0c2bc7206f695bb6fd6c4e09b2968c2','acme','["bulk"]','["*"]','[]',NULL,NULL,NULL,NULL,1,NULL,NULL);
INSERT INTO "credential" VALUES('network','network','','acme','["bulk"]','["*"]','["10.0.0.0/8"]',NULL,NULL,NULL,NULL,1,NULL,NULL);
INSERT INTO "credential" VALUES('password','password','$argon2id$v=19$m=65536,t=3,p=4$/yLJMPfDBHTo0XASs9iKsw$NceVUm4Oh7ZvXI1txVHD6bbNgg8eo10pAGHMY25YxBs','acme','["bulk"]','["src.test"]','[]',1000,10,100,60.0,0,NULL,NULL);
COMMIT;
PRAGMA user_version = 4;
