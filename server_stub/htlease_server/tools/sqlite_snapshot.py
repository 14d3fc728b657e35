"""All of a SQLite store, in one read transaction; a server may go on writing meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from htlease.errors import BadConfig
from htlease_server.store import sql
from htlease_server.store.base import (
    AuditRow,
    FlagRow,
    HistoryRow,
    MaintenanceRow,
    Run,
    SubjobRow,
    WorkflowRow,
)
from htlease_server.store.sqlite.sqlite_file import refuse_other_names
from htlease_server.store.sqlite.sqlite_store import MIGRATIONS, not_there
from htlease_server.tools.snapshot import SubjobRecord, subjob_records_of

#: Tables whose rows belong to a subjob.
_OF_SUBJOBS = ("lease", "history", "known_id")


class SqliteSnapshot:
    """Everything in one file; raises BadConfig when it is no store of this version."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        if not path.exists():
            raise not_there(path)
        refuse_other_names(path)
        try:
            # Not read-only: without -shm a reader of a WAL has to make it.
            self._db = sqlite3.connect(path, isolation_level=None)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            self._db.execute("PRAGMA query_only = ON")
            self._db.execute("BEGIN")
        except sqlite3.Error as problem:
            raise BadConfig(f"store {path} cannot be read: {problem}") from problem
        if version != len(MIGRATIONS):
            self._db.close()
            raise BadConfig(
                f"store {path} has schema version {version} and this htlease works on version"
                f" {len(MIGRATIONS)}; run `htlease store migrate`, or upgrade htlease"
            )

    def workflows(self) -> Iterator[WorkflowRow]:
        return map(WorkflowRow._make, self._db.execute(sql.ALL_WORKFLOWS))

    def subjob_records(self) -> Iterator[SubjobRecord]:
        subjobs = self._db.execute(sql.ALL_SUBJOBS)
        history = self._db.execute(sql.ALL_HISTORY)
        return subjob_records_of(map(SubjobRow._make, subjobs), map(HistoryRow._make, history))

    def held(self) -> Iterator[SubjobRow]:
        return map(SubjobRow._make, self._db.execute(sql.HELD_SUBJOBS))

    def known_ids(self) -> Iterator[tuple[str, int]]:
        return iter(self._db.execute("SELECT id_text, subjob_id FROM known_id ORDER BY 1, 2"))

    def is_known_as(self, subjob_id: int, id_text: str) -> bool:
        found = self._db.execute(
            "SELECT 1 FROM known_id WHERE id_text = ? AND subjob_id = ?", (id_text, subjob_id)
        )
        return found.fetchone() is not None

    def counts(self) -> Mapping[tuple[int, str], int]:
        rows = self._db.execute(
            "SELECT workflow_id, status, subjobs FROM subjob_count WHERE subjobs <> 0"
        )
        return {(workflow_id, status): subjobs for workflow_id, status, subjobs in rows}

    def runs(self) -> Sequence[Run]:
        rows = self._db.execute("SELECT started_at, alive_at FROM server_run ORDER BY 1")
        return [Run._make(row) for row in rows]

    def maintenance(self) -> Sequence[MaintenanceRow]:
        return [MaintenanceRow._make(row) for row in self._db.execute(sql.ALL_MAINTENANCE)]

    def flags(self) -> Sequence[FlagRow]:
        return [FlagRow._make(row) for row in self._db.execute(sql.ALL_FLAGS)]

    def audit_entries(self) -> Iterator[AuditRow]:
        return map(AuditRow._make, self._db.execute(sql.ALL_DEEDS))

    def fence_floor(self) -> int:
        floor: int = self._db.execute("SELECT fence FROM fence_floor").fetchone()[0]
        return floor

    def damage(self, is_quick: bool) -> Iterator[str]:
        try:
            pragma = "quick_check" if is_quick else "integrity_check"
            for (text,) in self._db.execute(f"PRAGMA {pragma}"):
                if text != "ok":
                    yield text
            for table in _OF_SUBJOBS:
                query = (
                    f"SELECT count(*) FROM {table} WHERE subjob_id NOT IN (SELECT id FROM subjob)"
                )
                (count,) = self._db.execute(query).fetchone()
                if count:
                    yield f"{count} rows of {table} belong to no subjob"
            for what, query in (
                ("no workflow", "workflow_id NOT IN (SELECT id FROM workflow)"),
                ("no lease record", "id NOT IN (SELECT subjob_id FROM lease)"),
            ):
                (count,) = self._db.execute(f"SELECT count(*) FROM subjob WHERE {query}").fetchone()
                if count:
                    yield f"{count} subjobs have {what}"
        except sqlite3.DatabaseError as problem:
            yield str(problem)

    def close(self) -> None:
        self._db.close()
