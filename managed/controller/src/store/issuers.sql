-- Nodes that the network key has made issuers, until the last delegation ends. A revocation lasts as long.
CREATE TABLE issuers (node BLOB PRIMARY KEY, ends INTEGER NOT NULL) STRICT, WITHOUT ROWID;
