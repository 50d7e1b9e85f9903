-- Highest serial of a certificate that was signed while the controller's clock was ahead, and that later ones do
-- not exceed. A removal reaches it.
ALTER TABLE members ADD COLUMN ahead INTEGER NOT NULL DEFAULT 0;
