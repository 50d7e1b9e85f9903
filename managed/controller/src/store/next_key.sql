-- Node key that the controller is about to get, with all that it needs: the network's key sealed for it, and its
-- delegation. The row counts once the machine's identity is that key, and is dropped if it gets another one.
-- `former` is the node whose place it takes; that is revoked at `retires`.
CREATE TABLE next_key (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    identity BLOB NOT NULL,
    former BLOB NOT NULL,
    sealed BLOB,
    links INTEGER NOT NULL,
    delegation BLOB NOT NULL,
    at INTEGER NOT NULL,
    retires INTEGER NOT NULL,
    is_now INTEGER NOT NULL,
    who TEXT NOT NULL
) STRICT;
-- Time at which a former key of this controller is revoked, and the serial of its last delegation; NULL for
-- other issuers, and for one that is revoked.
ALTER TABLE issuers ADD COLUMN retires INTEGER;
ALTER TABLE issuers ADD COLUMN last_serial INTEGER;
-- Last time up to which a former key of this controller has signed certificates, or 0.
ALTER TABLE network ADD COLUMN rekeyed INTEGER NOT NULL DEFAULT 0;
