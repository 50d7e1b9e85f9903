-- Decision about a member of which two runs are there at the same time: 0 the older one is kept, 1 both are
-- refused.
ALTER TABLE network ADD COLUMN on_clone INTEGER NOT NULL DEFAULT 0;
-- Time at which a member was held because two runs of it were there at the same time; 0 if it is not held for
-- that.
ALTER TABLE members ADD COLUMN copied INTEGER NOT NULL DEFAULT 0;
