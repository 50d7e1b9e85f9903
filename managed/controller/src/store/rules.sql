-- Access rules: the file as it was applied, their encoding for members, and their version; 0 before the first.
ALTER TABLE network ADD COLUMN rules_file BLOB;
ALTER TABLE network ADD COLUMN rules BLOB;
ALTER TABLE network ADD COLUMN rules_version INTEGER NOT NULL DEFAULT 0;
