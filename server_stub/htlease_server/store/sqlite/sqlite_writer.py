"""A SQLite store's one connection that writes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from htlease.errors import BadConfig
from htlease_server.store.base import (
    AuditRow,
    CommitOutcomeUnknown,
    DeletedSubjob,
    Displaced,
    HistoryRow,
    StoreFailed,
    SubjobRow,
    WorkflowRow,
    WriteSet,
)
from htlease_server.store.sql import FLAG, MAINTENANCE
from htlease_server.store.sqlite.bulk_insert import Insert, upsert
from htlease_server.store.sqlite.checkpoint import Checkpoints
from htlease_server.store.sqlite.sqlite_file import FileId, LogFiles, check_in_place
from htlease_server.store.sqlite.sqlite_place import put_whole
from htlease_server.store.sqlite.sqlite_reader import connected

#: What SQLite says when the disk, or its system, fails: SQLITE_IOERR and its kinds.
_IO_ERROR = "disk I/O error"
#: Pages that the writer keeps in memory: of a million subjobs, the upper parts of every index.
_CACHE_KIB = 64 * 1024

_PUT_SUBJOBS = upsert("subjob", SubjobRow._fields[:-2], fixed=("id", "workflow_id", "name"))
_PUT_LEASES = upsert("lease", ("subjob_id", "deadline_at", "ttl_seconds"), fixed=("subjob_id",))
_PUT_WORKFLOWS = upsert("workflow", WorkflowRow._fields, fixed=("id", "name"))
_COUNT = (
    "INSERT INTO subjob_count (workflow_id, status, subjobs, changed_at) VALUES (?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET"
    " subjobs = subjobs + excluded.subjobs, changed_at = max(changed_at, excluded.changed_at)"
)
_PUT_FLAG = f"INSERT OR REPLACE INTO flag ({FLAG}) VALUES (?, ?, ?, ?, ?)"
_PUT_MAINTENANCE = f"INSERT OR REPLACE INTO maintenance ({MAINTENANCE}) VALUES (?, ?, ?, ?)"
_ADD_HISTORY = Insert("history", HistoryRow._fields)
_ADD_DEEDS = Insert("deed", AuditRow._fields)
_ADD_KNOWN_IDS = Insert("known_id", ("id_text", "subjob_id"), "ON CONFLICT DO NOTHING")


class SqliteWriter:
    """Makes batches durable over one connection: on the disk before they count."""

    def __init__(
        self,
        db: sqlite3.Connection,
        path: Path,
        run_started_at: float | None = None,
        file: FileId | None = None,
    ) -> None:
        """With a run and its file, nothing is written any more once another one has begun.

        The connection is this one's own then. Raises Displaced.
        """
        self._path = path
        self._file = file
        self._logs = LogFiles(path)
        self._is_broken = False
        self._name = str(path)
        self._run_started_at = run_started_at
        self._use(db)

    def _use(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._checkpoints = Checkpoints(db, lambda: connected(self._path))
        self._db = db

    def write(self, write_set: WriteSet) -> None:
        if self._is_broken:
            try:
                self._mend()
            except CommitOutcomeUnknown as problem:  # of this batch it is known
                raise StoreFailed(str(problem)) from problem
        db = self._db
        is_committing = False
        try:
            db.execute("BEGIN IMMEDIATE")
            self._refuse_after_the_run()
            _PUT_WORKFLOWS.run(db, write_set.workflows)
            _PUT_SUBJOBS.run(db, [row[:-2] for row in write_set.subjobs])
            _PUT_LEASES.run(db, write_set.leases)
            db.executemany(_COUNT, write_set.count_rows())
            _ADD_HISTORY.run(db, write_set.history)
            _ADD_KNOWN_IDS.run(db, write_set.known_ids)
            db.executemany(_PUT_MAINTENANCE, write_set.maintenance)
            if write_set.fence_floor:
                db.execute("UPDATE fence_floor SET fence = max(fence, ?)", (write_set.fence_floor,))
            db.executemany("INSERT INTO server_run VALUES (?, ?)", write_set.runs)
            db.executemany(_PUT_FLAG, write_set.flags)
            _ADD_DEEDS.run(db, write_set.audit_entries)
            self._let_go(write_set.deleted)
            if write_set.alive:
                db.execute(
                    "UPDATE server_run SET alive_at = ? WHERE started_at = ?",
                    (write_set.alive.alive_at, write_set.alive.started_at),
                )
            is_committing = True
            db.execute("COMMIT")
            is_committing = False
            # After the commit: until now it has gone where the next start looks for it.
            self.check_in_place()
            self._checkpoints.after_commit()
        except sqlite3.Error as problem:
            if is_committing and _IO_ERROR in str(problem):
                self._is_broken = True
            failure = StoreFailed(f"store {self._name}: {problem}")
            failure.__cause__ = problem
        else:
            return
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
        if self._is_broken:
            self._mend()
        raise failure

    def _mend(self) -> None:
        """Make an end of a commit that could not be synced; raises CommitOutcomeUnknown.

        It may be in the log, where the next start would find it whole, and what the system's cache
        shows of the file may not be on the disk. So nothing goes on over the same connection, and
        something else is written in its place. Until that is on the disk nobody knows.
        """
        try:
            if self._run_started_at is not None:
                self._checkpoints.close()
                self._db.close()
                self._use(connected(self._path))
            self._db.execute("BEGIN IMMEDIATE")
            # Changes a page, and nothing on it: SQLite writes no page whose bytes stay the same.
            self._db.execute("INSERT INTO trimming VALUES (-1)")
            self._db.execute("DELETE FROM trimming WHERE workflow_id = -1")
            self._db.execute("COMMIT")
        except (sqlite3.Error, BadConfig) as problem:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise CommitOutcomeUnknown(f"store {self._name}: {problem}") from problem
        self._is_broken = False

    def _let_go(self, deleted: Sequence[DeletedSubjob]) -> None:
        if not deleted:
            return
        ids = [(row.id,) for row in deleted]
        workflows = [(workflow_id,) for workflow_id in {row.workflow_id for row in deleted}]
        known = [(id_text, row.id) for row in deleted for id_text in row.known_ids]
        for statement, rows in (
            ("INSERT INTO trimming VALUES (?)", workflows),
            ("DELETE FROM history WHERE subjob_id = ?", ids),
            ("DELETE FROM trimming WHERE workflow_id = ?", workflows),
            ("DELETE FROM known_id WHERE id_text = ? AND subjob_id = ?", known),
            ("DELETE FROM lease WHERE subjob_id = ?", ids),
            ("DELETE FROM subjob WHERE id = ?", ids),
        ):
            self._db.executemany(statement, rows)

    def check_in_place(self) -> None:
        """Raise Displaced when the store's files are not those that this writes to."""
        if self._file is None:
            return
        check_in_place(self._path, self._file)
        try:
            self._logs.check()
        except Displaced as problem:
            self._save_the_log()
            raise Displaced(f"{problem}; what was in it is in the main file now") from None

    def _save_the_log(self) -> None:
        """Move all that is in the log, which no other start would find, to the main file."""
        self._checkpoints.close()
        self._end_in_order()
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Let go of everything but a connection that was given; raises Displaced."""
        self._checkpoints.close()
        self.check_in_place()
        if self._run_started_at is not None:
            self._end_in_order()
            self._db.close()

    def _end_in_order(self) -> None:
        assert self._run_started_at is not None
        with suppress(sqlite3.Error):  # it is not said then; nothing is lost
            put_whole(self._db, self._run_started_at)

    def _refuse_after_the_run(self) -> None:
        """Refuse what a server left behind that was killed, once the next one reads the store."""
        if self._run_started_at is None:
            return
        ((started_at,),) = self._db.execute("SELECT started_at FROM current_run")
        if started_at != self._run_started_at:
            raise Displaced(f"store {self._name}: another server has started on it")
