-- Last time by which the controller was in use. What it has signed is at most an hour after it.
ALTER TABLE network ADD COLUMN served INTEGER NOT NULL DEFAULT 0;
-- Other times are no serials. One of them may be from a clock that was ahead once, and holds nothing up.
UPDATE network SET served = coalesce((SELECT max(max(serial, floor)) FROM members), created);
