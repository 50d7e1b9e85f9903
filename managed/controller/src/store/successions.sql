-- Successions of the network's keys, 104 bytes each. The key behind the first `links` of them has signed the
-- delegation, and is the one that is sealed.
ALTER TABLE network ADD COLUMN successions BLOB NOT NULL DEFAULT x'';
ALTER TABLE network ADD COLUMN links INTEGER NOT NULL DEFAULT 0;
