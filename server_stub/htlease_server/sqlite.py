"""The store in one SQLite file: WAL, every commit on the disk before it counts (FULL).

One server process owns the file (a lock beside it); any number of readers may look.
"""

from __future__ import annotations

import fcntl
import os
import pkgutil
import re
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from htlease.attempt import SubjobKey
from htlease.errors import BadConfig
from htlease_server.sqlite_insert import Insert, upsert
from htlease_server.store import (
    Batch,
    Closed,
    DeedRow,
    FlagRow,
    Gone,
    HistoryRow,
    ListedRow,
    MaintenanceRow,
    Run,
    StoreFailed,
    SubjobRow,
    WorkflowRow,
)

#: Migrations in order; `PRAGMA user_version` counts how many of them a file has seen.
MIGRATIONS = (
    "0001_first.sql",
    "0002_via.sql",
    "0003_maintenance.sql",
    "0004_keeping.sql",
    "0005_flags.sql",
    "0006_deeds.sql",
)
#: Runs remembered. What lies between the oldest and these counts as one long downtime, which can
#: only lengthen a lease.
RUNS_KEPT = 100
#: In the lock file: when the server started that ran last, and its last sign of life.
_STAMP_BYTES = 64
#: Pages in the write-ahead log before they are moved to the main file, 4 KiB each.
_CHECKPOINT_PAGES = 4000

_HISTORY = ", ".join(HistoryRow._fields)
_SUBJOB = ", ".join(SubjobRow._fields)
_WORKFLOW = ", ".join(WorkflowRow._fields)
_LISTED = (
    "subjob.id, workflow.name, subjob.name, status, deadline_at, ttl_seconds, fence, phase,"
    " attempt_number, attempt_id, host, updated_at"
    " FROM subjob JOIN workflow ON workflow.id = subjob.workflow_id"
    " JOIN lease ON lease.subjob_id = subjob.id"
)
_PUT_SUBJOBS = upsert("subjob", SubjobRow._fields[:-2], fixed=("id", "workflow_id", "name"))
_PUT_LEASES = upsert("lease", ("subjob_id", "deadline_at", "ttl_seconds"), fixed=("subjob_id",))
_PUT_WORKFLOWS = upsert("workflow", WorkflowRow._fields, fixed=("id", "name"))
_MAINTENANCE = ", ".join(MaintenanceRow._fields)
_COUNT = (
    "INSERT INTO subjob_count (workflow_id, status, subjobs, changed_at) VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET"
    " subjobs = subjobs + excluded.subjobs, changed_at = max(changed_at, excluded.changed_at)"
)
_FLAG = ", ".join(FlagRow._fields)
_PUT_FLAG = f"INSERT OR REPLACE INTO flag ({_FLAG}) VALUES (?, ?, ?, ?, ?)"
_PUT_MAINTENANCE = f"INSERT OR REPLACE INTO maintenance ({_MAINTENANCE}) VALUES (?, ?, ?, ?)"
_ADD_HISTORY = Insert("history", HistoryRow._fields)
_ADD_DEEDS = Insert("deed", DeedRow._fields)
_DEED = ", ".join(DeedRow._fields)
_ADD_KNOWN_IDS = Insert("known_id", ("id_text", "subjob_id"), "ON CONFLICT DO NOTHING")


class SqliteReader:
    """Look-ups over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def workflow(self, name: str) -> WorkflowRow | None:
        row = self._db.execute(f"SELECT {_WORKFLOW} FROM workflow WHERE name = ?", (name,))
        found = row.fetchone()
        return WorkflowRow(*found) if found else None

    def workflows(self, after: str, limit: int) -> Sequence[WorkflowRow]:
        rows = self._db.execute(
            f"SELECT {_WORKFLOW} FROM workflow WHERE name > ? ORDER BY name LIMIT ?",
            (after, limit),
        )
        return [WorkflowRow(*row) for row in rows]

    def subjob(self, key: SubjobKey) -> SubjobRow | None:
        found = self._db.execute(
            f"SELECT {_SUBJOB} FROM subjob JOIN lease ON subjob_id = id WHERE name = ?"
            " AND workflow_id = (SELECT id FROM workflow WHERE name = ?)",
            (key.subjob, key.workflow),
        ).fetchone()
        return SubjobRow(*found) if found else None

    def subjobs(self, workflow_id: int, after: str, limit: int) -> Sequence[ListedRow]:
        rows = self._db.execute(
            f"SELECT {_LISTED} WHERE workflow_id = ? AND subjob.name > ?"
            " ORDER BY subjob.name LIMIT ?",
            (workflow_id, after, limit),
        )
        return [ListedRow(*row) for row in rows]

    def subjobs_known_as(self, id_text: str, limit: int) -> Sequence[ListedRow]:
        rows = self._db.execute(
            f"SELECT {_LISTED} WHERE subjob.id IN"
            " (SELECT subjob_id FROM known_id WHERE id_text = ?)"
            " ORDER BY workflow.name, subjob.name LIMIT ?",
            (id_text, limit),
        )
        return [ListedRow(*row) for row in rows]

    def flags(self) -> Sequence[FlagRow]:
        rows = self._db.execute(f"SELECT {_FLAG} FROM flag ORDER BY name")
        return [FlagRow(*row) for row in rows]

    def counts(self, workflow_id: int) -> dict[str, int]:
        rows = self._db.execute(
            "SELECT status, subjobs FROM subjob_count WHERE workflow_id = ? AND subjobs > 0",
            (workflow_id,),
        )
        return dict(rows)

    def totals(self) -> dict[str, int]:
        rows = self._db.execute("SELECT status, sum(subjobs) FROM subjob_count GROUP BY status")
        return dict(rows)

    def closed_workflows(
        self, before: float, after: int, limit: int
    ) -> Sequence[tuple[int, str, int]]:
        return self._db.execute(
            "SELECT workflow_id, workflow.name, sum(subjobs) FROM subjob_count"
            " JOIN workflow ON workflow.id = workflow_id WHERE workflow_id > ?"
            " GROUP BY workflow_id, workflow.name HAVING sum(subjobs) > 0 AND max(changed_at) < ?"
            " AND sum(CASE WHEN status IN ('complete', 'failed', 'cancelled') THEN 0"
            " ELSE subjobs END) = 0 ORDER BY workflow_id LIMIT ?",
            (after, before, limit),
        ).fetchall()

    def closed_subjobs(self, workflow_id: int, limit: int) -> Sequence[Closed]:
        rows = self._db.execute(
            "SELECT id, name, status, fence FROM subjob WHERE workflow_id = ?"
            " AND status IN ('complete', 'failed', 'cancelled') LIMIT ?",
            (workflow_id, limit),
        )
        return [Closed(*row) for row in rows]

    def overdue(self, workflow_id: int, now: float) -> Sequence[tuple[int, str, float, float]]:
        return self._db.execute(
            "SELECT id, status, deadline_at, ttl_seconds"
            " FROM subjob INDEXED BY subjob_held JOIN lease ON subjob_id = id"
            " WHERE workflow_id = ?"
            " AND status IN ('active', 'recalled') AND deadline_at <= ?",
            (workflow_id, now),
        ).fetchall()

    def history(self, subjob_id: int, after: int, limit: int) -> Sequence[HistoryRow]:
        rows = self._db.execute(
            f"SELECT {_HISTORY} FROM history WHERE subjob_id = ? AND seq > ? ORDER BY seq LIMIT ?",
            (subjob_id, after, limit),
        )
        return [HistoryRow(*row) for row in rows]

    def history_of(self, subjob_id: int, events: Sequence[str]) -> Sequence[HistoryRow]:
        rows = self._db.execute(
            f"SELECT {_HISTORY} FROM history WHERE subjob_id = ?"
            f" AND event IN ({', '.join('?' * len(events))}) ORDER BY seq",
            (subjob_id, *events),
        )
        return [HistoryRow(*row) for row in rows]

    def requests(self, subjob_id: int, limit: int) -> Sequence[tuple[str, bytes]]:
        rows = self._db.execute(
            "SELECT request_id, digest FROM history WHERE subjob_id = ? AND digest IS NOT NULL"
            " ORDER BY seq DESC LIMIT ?",
            (subjob_id, limit),
        ).fetchall()
        return rows[::-1]

    def deeds(self, kind: str | None, after: int, limit: int) -> Sequence[tuple[int, DeedRow]]:
        of_kind = "" if kind is None else "kind = ? AND "
        rows = self._db.execute(
            f"SELECT id, {_DEED} FROM deed WHERE {of_kind}id > ? ORDER BY id LIMIT ?",
            (*(() if kind is None else (kind,)), after, limit),
        )
        return [(row[0], DeedRow(*row[1:])) for row in rows]

    def revocations(self, since: float) -> Sequence[DeedRow]:
        rows = self._db.execute(
            f"SELECT {_DEED} FROM deed WHERE kind = 'revoke-token' AND at >= ? ORDER BY id",
            (since,),
        )
        return [DeedRow(*row) for row in rows]

    def close(self) -> None:
        self._db.close()


class SqliteStore(SqliteReader):
    """The store in one file; raises BadConfig when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._lock_fd = self.lock(path)
        try:
            super().__init__(_connect(path))
            try:
                self._set_up()
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            os.close(self._lock_fd)
            raise

    @staticmethod
    def lock(path: Path) -> int:
        """Make this process the one writer of a file; the lock ends with the process or the fd.

        Raises BadConfig.
        """
        lock_path = path.with_name(path.name + ".lock")
        try:
            fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise BadConfig(
                f"store {path} cannot be written: {problem.strerror}; make its directory writable,"
                " or name another store with --store"
            ) from problem
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            os.close(fd)
            raise BadConfig(
                f"store {path} is in use by another htlease server; stop that one first, or name"
                " another store with --store"
            ) from problem
        return fd

    def _set_up(self) -> None:
        try:
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(MIGRATIONS):
                raise BadConfig(
                    f"store {self.name} has schema version {version}, written by a newer htlease;"
                    f" this one knows version {len(MIGRATIONS)}: upgrade htlease, or name another"
                    " store with --store"
                )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            for number, name in enumerate(MIGRATIONS[version:], version + 1):
                script = pkgutil.get_data("htlease_server", f"schema/sqlite/{name}")
                assert script is not None, f"schema/sqlite/{name} is missing from the package"
                self._db.executescript(
                    f"BEGIN IMMEDIATE; {script.decode()} PRAGMA user_version = {number}; COMMIT;"
                )
        except sqlite3.DatabaseError as problem:
            raise BadConfig(
                f"store {self.name} cannot be used: {problem}; restore it from a backup, or name"
                " another store with --store"
            ) from problem

    def begin_run(self, now: float) -> Sequence[Run]:
        try:
            self._db.execute(
                "DELETE FROM server_run WHERE started_at >"
                " (SELECT min(started_at) FROM server_run) AND started_at <="
                " (SELECT started_at FROM server_run ORDER BY started_at DESC LIMIT 1 OFFSET ?)",
                (RUNS_KEPT - 1,),
            )
            rows = self._db.execute(
                "SELECT started_at, alive_at FROM server_run ORDER BY started_at"
            )
            before = [Run(*row) for row in rows]
            self._refuse_the_past(before)
            self._db.execute("INSERT OR REPLACE INTO server_run VALUES (?, ?)", (now, now))
            self._stamp(Run(now, now))
        except sqlite3.Error as problem:
            raise BadConfig(
                f"store {self.name} takes no writes: {problem}; make room, or name another store"
                " with --store"
            ) from problem
        return before

    def _refuse_the_past(self, runs: Sequence[Run]) -> None:
        """Refuse a file that does not know the last server that ran on it.

        It is from a backup, or new: its fences would be issued again.
        """
        stamp = os.pread(self._lock_fd, _STAMP_BYTES, 0).split()
        if stamp and dict(runs).get(float(stamp[0]), 0.0) < float(stamp[1]):
            raise BadConfig(
                f"store {self.name} is older than what the last server here had; if it comes from a"
                " backup, or has to begin anew, run `htlease store fence-off`, which shuts out the"
                " attempts that it does not know"
            )

    def _stamp(self, run: Run) -> None:
        stamp = f"{run.started_at!r} {run.alive_at!r}".encode().ljust(_STAMP_BYTES)
        # On a full disk; an older stamp refuses less, and never too much.
        with suppress(OSError):
            os.pwrite(self._lock_fd, stamp, 0)

    def accept_the_past(self) -> None:
        """Let the next server start on this file, whatever ran here before."""
        os.ftruncate(self._lock_fd, 0)

    def maintenance(self) -> Sequence[MaintenanceRow]:
        rows = self._db.execute(f"SELECT {_MAINTENANCE} FROM maintenance ORDER BY started_at")
        return [MaintenanceRow(*row) for row in rows]

    def fence_floor(self) -> int:
        floor: int = self._db.execute("SELECT fence FROM fence_floor").fetchone()[0]
        return floor

    def next_ids(self) -> tuple[int, int]:
        query = "SELECT (SELECT max(id) FROM workflow), (SELECT max(id) FROM subjob)"
        workflow_id, subjob_id = self._db.execute(query).fetchone()
        return (workflow_id or 0) + 1, (subjob_id or 0) + 1

    def write(self, batch: Batch) -> None:
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            _PUT_WORKFLOWS.run(db, batch.workflows)
            _PUT_SUBJOBS.run(db, [row[:-2] for row in batch.subjobs])
            _PUT_LEASES.run(db, batch.leases)
            db.executemany(_COUNT, batch.count_rows())
            _ADD_HISTORY.run(db, batch.history)
            _ADD_KNOWN_IDS.run(db, batch.known_ids)
            db.executemany(_PUT_MAINTENANCE, batch.maintenance)
            if batch.fence_floor:
                db.execute("UPDATE fence_floor SET fence = max(fence, ?)", (batch.fence_floor,))
            db.executemany("INSERT INTO server_run VALUES (?, ?)", batch.runs)
            db.executemany(_PUT_FLAG, batch.flags)
            _ADD_DEEDS.run(db, batch.deeds)
            self._let_go(batch.gone)
            if batch.alive:
                db.execute(
                    "UPDATE server_run SET alive_at = ? WHERE started_at = ?",
                    (batch.alive.alive_at, batch.alive.started_at),
                )
            db.execute("COMMIT")
            if batch.alive:
                self._stamp(batch.alive)
        except sqlite3.Error as problem:
            raise StoreFailed(f"store {self.name}: {problem}") from problem
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _let_go(self, gone: Sequence[Gone]) -> None:
        if not gone:
            return
        ids = [(row.id,) for row in gone]
        workflows = [(workflow_id,) for workflow_id in {row.workflow_id for row in gone}]
        known = [(id_text, row.id) for row in gone for id_text in row.known_ids]
        for statement, rows in (
            ("INSERT INTO trimming VALUES (?)", workflows),
            ("DELETE FROM history WHERE subjob_id = ?", ids),
            ("DELETE FROM trimming WHERE workflow_id = ?", workflows),
            ("DELETE FROM known_id WHERE id_text = ? AND subjob_id = ?", known),
            ("DELETE FROM lease WHERE subjob_id = ?", ids),
            ("DELETE FROM subjob WHERE id = ?", ids),
        ):
            self._db.executemany(statement, rows)

    def reader(self) -> SqliteReader:
        return SqliteReader(_connect(self._path, read_only=True))

    def close(self) -> None:
        super().close()
        os.close(self._lock_fd)


def path_of(url: str) -> Path:
    """Return the file that `sqlite:///PATH` names; an absolute PATH makes it four slashes."""
    match = re.fullmatch(r"sqlite:///(.+)", url)
    if not match:
        raise BadConfig(f"store {url!r} is not of the form sqlite:///PATH")
    return Path(match[1]).absolute()


def _connect(path: Path, read_only: bool = False) -> sqlite3.Connection:
    uri = path.as_uri() + ("?mode=ro" if read_only else "")
    try:
        # Each connection is used by one thread at a time, but not always by the one that made it.
        return sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=64
        )
    except sqlite3.Error as problem:
        raise BadConfig(f"store {path} cannot be opened: {problem}") from problem
