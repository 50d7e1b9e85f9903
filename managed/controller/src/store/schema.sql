-- Times and serials are milliseconds since the Unix epoch, durations milliseconds. Addresses are 16 bytes, IPv4
-- ones in their mapped form, so that their order is the numerical one. `changed` is the number of the last commit
-- that has changed a row; other processes reload what has changed since the last commit that they know. `purged`
-- is the number of the last commit that has deleted such rows; before it, processes reload all.
CREATE TABLE network (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    change INTEGER NOT NULL,
    refused_change INTEGER NOT NULL,
    purged INTEGER NOT NULL,
    name TEXT NOT NULL,
    id INTEGER NOT NULL,
    key BLOB NOT NULL,
    sealed BLOB,
    delegation BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    has_issued INTEGER NOT NULL,
    unsettled_until INTEGER NOT NULL,
    pools_rest_until INTEGER NOT NULL,
    outlive INTEGER NOT NULL,
    pool4 TEXT,
    pool6 TEXT,
    ephemeral_ipv4 INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT;

-- state: 0 member, 1 held until a person approves again, 2 removed, 3 forgotten.
CREATE TABLE members (
    node BLOB PRIMARY KEY,
    identity BLOB NOT NULL,
    state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 3),
    name TEXT NOT NULL,
    role INTEGER NOT NULL,
    is_ephemeral INTEGER NOT NULL,
    tags TEXT NOT NULL,
    claims BLOB NOT NULL,
    outlive INTEGER,
    floor INTEGER NOT NULL,
    serial INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    run INTEGER NOT NULL,
    starts INTEGER NOT NULL,
    source BLOB,
    description TEXT NOT NULL,
    admitted_by TEXT NOT NULL,
    joined INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    changed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_holder_of_a_name ON members (name) WHERE state < 2;
CREATE INDEX members_changed ON members (changed);

-- The primary key decides that an address never has two holders. `until` is the end of its rest after the
-- holder is gone, and NULL while it has one.
CREATE TABLE addresses (
    address BLOB PRIMARY KEY CHECK (length(address) = 16),
    family INTEGER NOT NULL CHECK (family IN (4, 6)),
    node BLOB NOT NULL,
    until INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_address_of_a_family ON addresses (node, family);
CREATE INDEX addresses_until ON addresses (until) WHERE until IS NOT NULL;

CREATE TABLE reservations (
    address BLOB PRIMARY KEY CHECK (length(address) = 16),
    family INTEGER NOT NULL CHECK (family IN (4, 6)),
    node BLOB,
    name TEXT,
    CHECK ((node IS NULL) <> (name IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
    uses INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0 CHECK (used <= uses),
    made INTEGER NOT NULL,
    made_by TEXT NOT NULL,
    ends INTEGER NOT NULL,
    name TEXT,
    role INTEGER NOT NULL,
    tags TEXT NOT NULL,
    is_ephemeral INTEGER NOT NULL,
    outlive INTEGER,
    replaces BLOB
) STRICT, WITHOUT ROWID;

CREATE TABLE token_uses (
    token BLOB NOT NULL REFERENCES tokens (hash) ON DELETE CASCADE,
    node BLOB NOT NULL,
    at INTEGER NOT NULL,
    is_removed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (token, node)
) STRICT, WITHOUT ROWID;
CREATE INDEX token_uses_of_node ON token_uses (node);

CREATE TABLE pending (
    node BLOB PRIMARY KEY,
    identity BLOB NOT NULL,
    code TEXT NOT NULL,
    name TEXT,
    description TEXT NOT NULL,
    source BLOB NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    has_token INTEGER NOT NULL,
    is_allowed INTEGER NOT NULL,
    is_gone INTEGER NOT NULL,
    changed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_machine_of_a_code ON pending (code) WHERE is_gone = 0;
CREATE INDEX pending_changed ON pending (changed);

CREATE TABLE refused (node BLOB PRIMARY KEY, identity BLOB NOT NULL, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE revocations (
    node BLOB PRIMARY KEY,
    min_serial INTEGER NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tag_settings (tag TEXT PRIMARY KEY, outlive INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE log (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    what TEXT NOT NULL
) STRICT;
CREATE TRIGGER log_is_not_changed BEFORE UPDATE ON log BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
CREATE TRIGGER log_is_not_shortened BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;
