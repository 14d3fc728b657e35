-- Switches for what phases need; a flag that is not here is up.
CREATE TABLE flag (
    name       TEXT PRIMARY KEY,
    is_up      INTEGER NOT NULL,
    reason     TEXT,
    actor      TEXT NOT NULL,
    changed_at REAL NOT NULL
) WITHOUT ROWID;
