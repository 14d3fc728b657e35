-- Switches for what phases need; a flag that is not here is up.
CREATE TABLE flag (
    name       text PRIMARY KEY,
    is_up      integer NOT NULL,
    reason     text,
    actor      text NOT NULL,
    changed_at double precision NOT NULL,
    -- Raised by each change, so that other servers see that there is one.
    version    bigint NOT NULL
);
CREATE INDEX flag_version ON flag (version);
