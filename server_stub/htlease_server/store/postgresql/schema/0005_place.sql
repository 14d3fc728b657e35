-- In which database a server last began to serve this store, so that a restored dump is not served
-- beside it. A standby that was promoted is the same one.
CREATE TABLE store_place (
    only_one integer PRIMARY KEY CHECK (only_one = 1),
    -- What initdb gave the cluster, or nothing where the user may not know.
    cluster  text NOT NULL,
    database text NOT NULL
);
