-- Delegation of a member that may renew certificates while no controller answers; NULL if it may not.
ALTER TABLE members ADD COLUMN spare BLOB;
