ALTER TABLE workflow ADD COLUMN made_by text;

CREATE TABLE deed (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       double precision NOT NULL,
    kind     text NOT NULL,
    actor    text NOT NULL,
    workflow text,
    subjob   text,
    token_id text,
    via      text,
    data     text NOT NULL
);
CREATE INDEX deed_by_kind ON deed (kind, id);
CREATE FUNCTION refuse_to_change_deeds () RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit is append-only'; END $$;
CREATE TRIGGER deed_is_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON deed
FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_deeds ();
