"""All of a PostgreSQL store at one instant, and writing to it past the servers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import psycopg

from htlease.errors import BadConfig
from htlease_server.store import sql as queries
from htlease_server.store.base import (
    AuditRow,
    FlagRow,
    HistoryRow,
    MaintenanceRow,
    Run,
    StoreFailed,
    SubjobRow,
    WorkflowRow,
    WriteSet,
)
from htlease_server.store.postgresql import statements as sql
from htlease_server.store.postgresql.connection import MIGRATIONS, Database, why_not
from htlease_server.store.postgresql.postgres_place import forget_place
from htlease_server.tools.snapshot import SubjobRecord, subjob_records_of

#: Told from servers, which call themselves `htlease`.
_NAME = "htlease store"
_ROWS_AT_ONCE = 5_000
_ID_BLOCK = 1000


def connected(url: str) -> tuple[str, psycopg.Connection[Any]]:
    """Return what a person calls a database of this version, and a connection to it."""
    database = Database(url)
    try:
        connection = database.connect(application_name=_NAME)
        row = connection.execute("SELECT to_regclass('schema_version') IS NOT NULL").fetchone()
        version = 0
        if row is not None and row[0]:
            row = connection.execute("SELECT version FROM schema_version").fetchone()
            version = row[0] if row else 0
    except psycopg.Error as problem:
        raise BadConfig(f"store {database.name} {why_not(problem)}") from None
    if version != len(MIGRATIONS):
        connection.close()
        raise BadConfig(
            f"store {database.name} has schema version {version} and this htlease works on version"
            f" {len(MIGRATIONS)}; run `htlease store migrate`, or upgrade htlease"
        )
    return database.name, connection


def migrate(url: str) -> int:
    """Bring a database to this schema and return its version; raises BadConfig."""
    Database(url).connect_first().close()
    return len(MIGRATIONS)


def refuse_servers(name: str, connection: psycopg.Connection[Any]) -> None:
    """Raise BadConfig when a server is connected to the database."""
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'htlease'"
    ).fetchone()
    if row is not None and row[0]:
        raise BadConfig(f"store {name} is in use by another htlease server; stop all of them first")


class PostgresSnapshot:
    """Everything in a database; raises BadConfig when it is no store of this version."""

    def __init__(self, url: str) -> None:
        self.name, self._db = connected(url)
        self._names = itertools.count()
        self._db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def _all(self, query: str) -> Iterator[tuple[Any, ...]]:
        # In the server's memory only a part at a time.
        name = f"all_{next(self._names)}"
        with psycopg.ServerCursor(self._db, name) as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            yield from cursor.execute(query.encode(), binary=True)

    def _one(self, query: str, *given: object) -> Any:
        row = self._db.execute(query.encode(), given).fetchone()
        return row[0] if row else None

    def workflows(self) -> Iterator[WorkflowRow]:
        return map(WorkflowRow._make, self._all(queries.ALL_WORKFLOWS))

    def subjob_records(self) -> Iterator[SubjobRecord]:
        subjobs, history = self._all(queries.ALL_SUBJOBS), self._all(queries.ALL_HISTORY)
        return subjob_records_of(map(SubjobRow._make, subjobs), map(HistoryRow._make, history))

    def held(self) -> Iterator[SubjobRow]:
        return map(SubjobRow._make, self._all(queries.HELD_SUBJOBS))

    def known_ids(self) -> Iterator[tuple[str, int]]:
        rows = self._all("SELECT id_text, subjob_id FROM known_id ORDER BY 1, 2")
        return ((id_text, subjob_id) for id_text, subjob_id in rows)

    def is_known_as(self, subjob_id: int, id_text: str) -> bool:
        query = "SELECT 1 FROM known_id WHERE id_text = %s AND subjob_id = %s"
        return self._one(query, id_text, subjob_id) is not None

    def counts(self) -> Mapping[tuple[int, str], int]:
        rows = self._all(
            "SELECT workflow_id, status, sum(subjobs)::bigint FROM subjob_count"
            " GROUP BY workflow_id, status HAVING sum(subjobs) <> 0"
        )
        return {(workflow_id, status): subjobs for workflow_id, status, subjobs in rows}

    def runs(self) -> Sequence[Run]:
        rows = self._all("SELECT started_at, alive_at FROM server_run ORDER BY id")
        return [Run._make(row) for row in rows]

    def maintenance(self) -> Sequence[MaintenanceRow]:
        return [MaintenanceRow._make(row) for row in self._all(queries.ALL_MAINTENANCE)]

    def flags(self) -> Sequence[FlagRow]:
        return [FlagRow._make(row) for row in self._all(queries.ALL_FLAGS)]

    def audit_entries(self) -> Iterator[AuditRow]:
        return map(AuditRow._make, self._all(queries.ALL_DEEDS))

    def fence_floor(self) -> int:
        return int(self._one("SELECT fence FROM fence_floor"))

    def damage(self, is_quick: bool) -> Iterator[str]:
        """Yield rows that belong to nothing; pages and indexes are the database's business."""
        for table in ("lease", "history", "known_id"):
            count = self._one(
                f"SELECT count(*) FROM {table} WHERE NOT EXISTS"
                f" (SELECT FROM subjob WHERE id = {table}.subjob_id)"
            )
            if count:
                yield f"{count} rows of {table} belong to no subjob"
        for what, table, column in (
            ("no workflow", "workflow", "id = subjob.workflow_id"),
            ("no lease record", "lease", "subjob_id = subjob.id"),
        ):
            count = self._one(
                "SELECT count(*) FROM subjob WHERE NOT EXISTS"
                f" (SELECT FROM {table} WHERE {table}.{column})"
            )
            if count:
                yield f"{count} subjobs have {what}"

    def close(self) -> None:
        self._db.close()


class PostgresFiller:
    """Writes write sets past the servers, of which none may run; raises BadConfig."""

    def __init__(self, url: str) -> None:
        self.name, self._db = connected(url)
        refuse_servers(self.name, self._db)

    def is_empty(self) -> bool:
        """Tell whether there is no workflow and no subjob."""
        row = self._db.execute(
            "SELECT EXISTS (SELECT FROM workflow) OR EXISTS (SELECT FROM subjob)"
        ).fetchone()
        return row is not None and not row[0]

    def write(self, write_set: WriteSet) -> None:
        """Write a write set; raises StoreFailed."""
        counts = [
            (workflow_id, status, 0, count, at)
            for workflow_id, status, count, at in write_set.count_rows()
        ]
        try:
            with self._db.transaction():
                for insert, rows in (
                    (sql.PUT_WORKFLOWS, write_set.workflows),
                    (sql.PUT_SUBJOBS, [row[:-2] for row in write_set.subjobs]),
                    (sql.PUT_LEASES, write_set.leases),
                    (sql.ADD_HISTORY, write_set.history),
                    (sql.ADD_KNOWN_IDS, write_set.known_ids),
                    (sql.COUNT, counts),
                    (sql.ADD_DEEDS, write_set.audit_entries),
                    (sql.PUT_MAINTENANCE, write_set.maintenance),
                    (sql.PUT_FLAGS, write_set.flags),
                ):
                    if rows:
                        insert.run(self._db, rows)
                for run in write_set.runs:
                    self._db.execute(
                        "INSERT INTO server_run (started_at, alive_at) VALUES (%s, %s)", run
                    )
                if write_set.fence_floor:
                    self._db.execute(
                        "UPDATE fence_floor SET fence = greatest(fence, %s)",
                        (write_set.fence_floor,),
                    )
        except psycopg.Error as problem:
            raise StoreFailed(f"store {self.name}: {problem}") from None

    def forget_place(self) -> None:
        """Let servers start on it wherever it is."""
        forget_place(self._db)

    def all_or_nothing(self) -> AbstractContextManager[object]:
        """Make what is written within it one transaction."""
        return self._db.transaction()

    def set_ids(self) -> None:
        """Let servers give row IDs above those that are there."""
        for table in ("workflow", "subjob"):
            self._db.execute(
                f"SELECT setval('{table}_ids', (coalesce(max(id), 0) / {_ID_BLOCK} + 1)"
                f" * {_ID_BLOCK} + 1, false) FROM {table}".encode()
            )

    def close(self) -> None:
        """Let go of the database."""
        self._db.close()
