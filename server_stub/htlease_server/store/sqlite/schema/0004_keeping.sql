-- What keeps a store of any size quick, and lets old workflows go.

-- How many subjobs of a workflow have each status, changed with them, so that nobody has to count
-- a million rows for a list; and when that was, so that nobody has to look for the last change.
CREATE TABLE subjob_count (
    workflow_id INTEGER NOT NULL REFERENCES workflow (id),
    status      TEXT NOT NULL,
    subjobs     INTEGER NOT NULL,
    changed_at  REAL NOT NULL,
    PRIMARY KEY (workflow_id, status)
) WITHOUT ROWID;
INSERT INTO subjob_count
SELECT workflow_id, status, count(*), max(updated_at) FROM subjob GROUP BY workflow_id, status;

-- Only what is held has to be looked for: whose lease may have run out.
DROP INDEX subjob_by_status;
CREATE INDEX subjob_held ON subjob (workflow_id) WHERE status IN ('active', 'recalled');

-- No fence is issued at or below it to a subjob whose last fence is not known here any more: it was
-- trimmed, or the store came back from a backup.
CREATE TABLE fence_floor (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    fence INTEGER NOT NULL
);
INSERT INTO fence_floor VALUES (1, 0);

-- The workflow whose history may be deleted in this transaction.
CREATE TABLE trimming (workflow_id INTEGER PRIMARY KEY);
DROP TRIGGER history_is_never_deleted;
CREATE TRIGGER history_is_never_deleted BEFORE DELETE ON history
WHEN (SELECT workflow_id FROM subjob WHERE id = OLD.subjob_id)
    NOT IN (SELECT workflow_id FROM trimming)
BEGIN SELECT RAISE (ABORT, 'history is append-only'); END;
