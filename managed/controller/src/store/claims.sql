-- Claims of the members that an invite admits.
ALTER TABLE tokens ADD COLUMN claims BLOB NOT NULL DEFAULT x'';
