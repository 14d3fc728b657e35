-- The server whose writes count: what one left behind that was killed is refused once the next
-- has begun to read.
CREATE TABLE current_run (
    only_one   INTEGER PRIMARY KEY CHECK (only_one = 1),
    started_at REAL NOT NULL
);
