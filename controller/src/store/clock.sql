-- Last time by which the controller was in use. What it has signed is at most an hour after it.
ALTER TABLE network ADD COLUMN served INTEGER NOT NULL DEFAULT 0;
UPDATE network SET served = max(created,
    coalesce((SELECT max(at) FROM log), 0),
    coalesce((SELECT max(max(serial, floor, joined, removed)) FROM members), 0));
