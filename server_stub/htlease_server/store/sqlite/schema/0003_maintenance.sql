-- Announced times in which no lease runs out. One that ended early has the end as its `until_at`.
CREATE TABLE maintenance (
    started_at REAL PRIMARY KEY,
    until_at   REAL NOT NULL,
    reason     TEXT,
    actor      TEXT NOT NULL
) WITHOUT ROWID;
