-- Where the store was when a server last began to serve it, so that a copy of it is not served beside
-- it: SQLite keeps its log by the name of the file, and fences would be issued twice.
CREATE TABLE store_place (
    only_one  INTEGER PRIMARY KEY CHECK (only_one = 1),
    inode     TEXT NOT NULL,
    -- What names the machine, or nothing where nobody knows.
    machine   TEXT NOT NULL,
    -- Inode of the directory, and the file's name in it: where its log lies.
    directory TEXT NOT NULL,
    name      TEXT NOT NULL,
    path      TEXT NOT NULL,
    -- Whoever wrote last has ended in order: nothing is in the log that is not in the main file.
    is_whole  INTEGER NOT NULL
);
