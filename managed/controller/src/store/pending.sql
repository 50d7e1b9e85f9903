-- The memory of the process that serves has what an approval program has decided.
ALTER TABLE pending DROP COLUMN has_token;
ALTER TABLE pending DROP COLUMN is_allowed;
