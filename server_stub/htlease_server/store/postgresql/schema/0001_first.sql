-- What stands in store/sqlite/schema is explained there; here is what is otherwise.

-- Row IDs are given to servers in blocks of as many as the increment says, so that a server knows
-- the ID of a row before it writes it and all rows of a batch go in few statements.
CREATE SEQUENCE workflow_ids INCREMENT BY 1000;
CREATE SEQUENCE subjob_ids INCREMENT BY 1000;

-- Times in which servers answered. All servers over this database share the newest one.
CREATE TABLE server_run (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at double precision NOT NULL,
    alive_at   double precision NOT NULL
) WITH (fillfactor = 50);

-- Empty after a crash and on a promoted standby, whatever the reason: that is how servers know that
-- commits which did not wait for the disk may be lost. A row names the database process that wrote
-- it, for services that keep unlogged tables over a failover.
CREATE UNLOGGED TABLE database_life (
    witness text PRIMARY KEY
);

CREATE TABLE maintenance (
    started_at double precision PRIMARY KEY,
    until_at   double precision NOT NULL,
    reason     text,
    actor      text NOT NULL,
    -- Raised by each change, so that other servers see that there is one.
    version    bigint NOT NULL
);

CREATE TABLE workflow (
    id         bigint PRIMARY KEY,
    name       text COLLATE "C" NOT NULL UNIQUE,
    created_at double precision NOT NULL,
    template   integer NOT NULL DEFAULT 0,
    labels     text NOT NULL DEFAULT '{}',
    plan       text,
    structure  text,
    request_id text,
    digest     bytea
);

-- The tables below have no foreign keys: one costs a look-up and a row lock for each row written,
-- and a server writes them in one transaction with the row that they belong to.
CREATE TABLE subjob (
    id             bigint PRIMARY KEY,
    workflow_id    bigint NOT NULL,
    name           text COLLATE "C" NOT NULL,
    status         text NOT NULL,
    fence          bigint NOT NULL,
    phase          text,
    attempt_number integer NOT NULL,
    attempt_id     text,
    host           text,
    seq            bigint NOT NULL,
    updated_at     double precision NOT NULL,
    snapshot       bytea NOT NULL,
    UNIQUE (workflow_id, name)
) WITH (fillfactor = 70);
CREATE INDEX subjob_held ON subjob (workflow_id) WHERE status IN ('active', 'recalled');

-- Every server adds to rows of its own (its share), or servers would wait for each other's commits.
CREATE TABLE subjob_count (
    workflow_id bigint NOT NULL,
    status      text NOT NULL,
    share       bigint NOT NULL,
    subjobs     bigint NOT NULL,
    changed_at  double precision NOT NULL,
    PRIMARY KEY (workflow_id, status, share)
) WITH (fillfactor = 50);

-- The row that a server locks to decide about a subjob. Locking writes to the page; here two
-- hundred share one, and a renewal touches no other table.
CREATE TABLE lease (
    subjob_id   bigint PRIMARY KEY,
    deadline_at double precision NOT NULL,
    ttl_seconds double precision NOT NULL
) WITH (fillfactor = 60);

CREATE TABLE history (
    subjob_id  bigint NOT NULL,
    seq        bigint NOT NULL,
    at         double precision NOT NULL,
    event      text NOT NULL,
    fence      bigint,
    actor      text NOT NULL,
    request_id text NOT NULL,
    digest     bytea,
    client_at  text,
    via        text,
    data       text NOT NULL,
    PRIMARY KEY (subjob_id, seq)
);

CREATE TABLE fence_floor (
    id    integer PRIMARY KEY CHECK (id = 1),
    fence bigint NOT NULL
);
INSERT INTO fence_floor VALUES (1, 0);

CREATE TABLE trimming (workflow_id bigint PRIMARY KEY);

CREATE FUNCTION refuse_to_change_history () RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'history is append-only'; END $$;
CREATE TRIGGER history_is_never_changed BEFORE UPDATE OR TRUNCATE ON history
FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_history ();

CREATE FUNCTION refuse_to_delete_history () RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
    IF EXISTS (SELECT FROM subjob JOIN trimming USING (workflow_id) WHERE id = OLD.subjob_id) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'history is append-only';
END $$;
CREATE TRIGGER history_is_never_deleted BEFORE DELETE ON history
FOR EACH ROW EXECUTE FUNCTION refuse_to_delete_history ();

CREATE TABLE known_id (
    id_text   text COLLATE "C" NOT NULL,
    subjob_id bigint NOT NULL,
    PRIMARY KEY (id_text, subjob_id)
);
