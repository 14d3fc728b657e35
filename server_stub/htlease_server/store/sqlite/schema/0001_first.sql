-- Runs of a server over this store. Between the last sign of life of one run and the start of the
-- next nobody could renew: leases that were live then are extended when they are looked at.
CREATE TABLE server_run (
    started_at REAL PRIMARY KEY,
    -- An instant up to which this run surely answered, and all renewals up to which are stored.
    alive_at   REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE workflow (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL,
    template   INTEGER NOT NULL DEFAULT 0,
    labels     TEXT NOT NULL DEFAULT '{}',
    plan       TEXT,
    structure  TEXT,
    -- The PUT that was accepted last, to recognise it when it comes again.
    request_id TEXT,
    digest     BLOB
);

-- One row for each subjob: columns for lists and counts, and in `snapshot` the state that the
-- lease rules look at (msgpack of htlease.rules.state.SubjobState), less its deadline.
CREATE TABLE subjob (
    id             INTEGER PRIMARY KEY,
    workflow_id    INTEGER NOT NULL REFERENCES workflow (id),
    name           TEXT NOT NULL,
    status         TEXT NOT NULL,
    fence          INTEGER NOT NULL,
    phase          TEXT,
    attempt_number INTEGER NOT NULL,
    attempt_id     TEXT,
    host           TEXT,
    seq            INTEGER NOT NULL,
    updated_at     REAL NOT NULL,
    snapshot       BLOB NOT NULL,
    UNIQUE (workflow_id, name)
);
-- The deadline of each subjob's last lease. Renewals change nothing else, and a page has room for
-- two hundred of these rows, so that a hundred thousand renewals touch few pages.
CREATE TABLE lease (
    subjob_id   INTEGER PRIMARY KEY REFERENCES subjob (id),
    deadline_at REAL NOT NULL,
    ttl_seconds REAL NOT NULL
);
CREATE INDEX subjob_by_status ON subjob (workflow_id, status);

-- What happened, in order; the source of the snapshots and of every explanation. Rows lie in the
-- order of their arrival, so that the events of many subjobs in one transaction share few pages.
CREATE TABLE history (
    id         INTEGER PRIMARY KEY,
    subjob_id  INTEGER NOT NULL REFERENCES subjob (id),
    seq        INTEGER NOT NULL,
    at         REAL NOT NULL,
    event      TEXT NOT NULL,
    fence      INTEGER,
    actor      TEXT NOT NULL,
    request_id TEXT NOT NULL,
    -- Of call and body, on the first event of an accepted request only.
    digest     BLOB,
    client_at  TEXT,
    data       TEXT NOT NULL
);
CREATE UNIQUE INDEX history_of_subjob ON history (subjob_id, seq);

-- A history that can be edited explains nothing. Whoever has to delete (a retention rule, a legal
-- duty) drops these two triggers in the same transaction, and so does it knowingly.
CREATE TRIGGER history_is_never_changed BEFORE UPDATE ON history
BEGIN SELECT RAISE (ABORT, 'history is append-only'); END;
CREATE TRIGGER history_is_never_deleted BEFORE DELETE ON history
BEGIN SELECT RAISE (ABORT, 'history is append-only'); END;

-- Every ID by which a subjob was ever known: GlobalJobIds, attempt IDs, links, its own name.
CREATE TABLE known_id (
    id_text   TEXT NOT NULL,
    subjob_id INTEGER NOT NULL REFERENCES subjob (id),
    PRIMARY KEY (id_text, subjob_id)
) WITHOUT ROWID;
