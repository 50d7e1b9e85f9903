-- Removals that other issuers have signed. `revocations` has those of this controller.
CREATE TABLE heard (
    node BLOB PRIMARY KEY,
    issuer BLOB NOT NULL,
    min_serial INTEGER NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Time at which the store was restored from a backup, or 0 if it is not one, or has heard from members since.
ALTER TABLE network ADD COLUMN restored INTEGER NOT NULL DEFAULT 0;
