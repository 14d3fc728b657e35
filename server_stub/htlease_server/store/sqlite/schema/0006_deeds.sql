-- Who made a workflow: without a pattern in their token nobody but its submitter reaches it.
ALTER TABLE workflow ADD COLUMN made_by TEXT;

-- What was done to the site itself: tokens made and revoked, keys, workflows, maintenance.
CREATE TABLE deed (
    id       INTEGER PRIMARY KEY,
    at       REAL NOT NULL,
    kind     TEXT NOT NULL,
    actor    TEXT NOT NULL,
    workflow TEXT,
    subjob   TEXT,
    token_id TEXT,
    via      TEXT,
    -- What else is to be known of it, as JSON.
    data     TEXT NOT NULL
);
CREATE INDEX deed_by_kind ON deed (kind, id);
CREATE TRIGGER deed_is_never_changed BEFORE UPDATE ON deed
BEGIN SELECT RAISE (ABORT, 'the audit is append-only'); END;
CREATE TRIGGER deed_is_never_deleted BEFORE DELETE ON deed
BEGIN SELECT RAISE (ABORT, 'the audit is append-only'); END;
