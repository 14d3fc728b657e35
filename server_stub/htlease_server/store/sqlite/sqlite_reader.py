"""Look-ups in a SQLite store over one connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from htlease.errors import BadConfig
from htlease.rules.attempt import SubjobKey
from htlease_server.store.base import (
    AuditRow,
    ClosedSubjob,
    FlagRow,
    HistoryRow,
    ListedRow,
    SubjobRow,
    WorkflowRow,
)
from htlease_server.store.sql import (
    ALL_FLAGS,
    DEED,
    HISTORY,
    ID_MAX,
    IS_HELD,
    SELECT_LISTED,
    SELECT_SUBJOB,
    WORKFLOW,
)


class SqliteReader:
    """Look-ups over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def workflow(self, name: str) -> WorkflowRow | None:
        row = self._db.execute(f"SELECT {WORKFLOW} FROM workflow WHERE name = ?", (name,))
        found = row.fetchone()
        return WorkflowRow(*found) if found else None

    def workflows(self, after: str, limit: int) -> Sequence[WorkflowRow]:
        rows = self._db.execute(
            f"SELECT {WORKFLOW} FROM workflow WHERE name > ? ORDER BY name LIMIT ?",
            (after, limit),
        )
        return [WorkflowRow(*row) for row in rows]

    def subjob(self, key: SubjobKey) -> SubjobRow | None:
        found = self._db.execute(
            f"{SELECT_SUBJOB} WHERE name = ?"
            " AND workflow_id = (SELECT id FROM workflow WHERE name = ?)",
            (key.subjob, key.workflow),
        ).fetchone()
        return SubjobRow(*found) if found else None

    def subjobs(self, workflow_id: int, after: str, limit: int) -> Sequence[ListedRow]:
        rows = self._db.execute(
            f"{SELECT_LISTED} WHERE workflow_id = ? AND subjob.name > ?"
            " ORDER BY subjob.name LIMIT ?",
            (workflow_id, after, limit),
        )
        return [ListedRow(*row) for row in rows]

    def subjobs_known_as(self, id_text: str, limit: int) -> Sequence[ListedRow]:
        rows = self._db.execute(
            f"{SELECT_LISTED} WHERE subjob.id IN"
            " (SELECT subjob_id FROM known_id WHERE id_text = ?)"
            " ORDER BY workflow.name, subjob.name LIMIT ?",
            (id_text, limit),
        )
        return [ListedRow(*row) for row in rows]

    def flags(self) -> Sequence[FlagRow]:
        rows = self._db.execute(ALL_FLAGS)
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

    def closed_subjobs(self, workflow_id: int, limit: int) -> Sequence[ClosedSubjob]:
        rows = self._db.execute(
            "SELECT id, name, status, fence FROM subjob WHERE workflow_id = ?"
            " AND status IN ('complete', 'failed', 'cancelled') LIMIT ?",
            (workflow_id, limit),
        )
        return [ClosedSubjob(*row) for row in rows]

    def nth_held(self, workflow_id: int, after: int, nth: int) -> int | None:
        found = self._db.execute(
            "SELECT id FROM subjob INDEXED BY subjob_held WHERE workflow_id = ?"
            f" AND {IS_HELD} AND id > ? ORDER BY id LIMIT 1 OFFSET ?",
            (workflow_id, after, nth - 1),
        ).fetchone()
        return found[0] if found else None

    def overdue(
        self, workflow_id: int, now: float, after: int = 0, last: int | None = None
    ) -> Sequence[tuple[int, str, float, float]]:
        return self._db.execute(
            "SELECT id, status, deadline_at, ttl_seconds"
            " FROM subjob INDEXED BY subjob_held CROSS JOIN lease ON subjob_id = id"
            f" WHERE workflow_id = ? AND {IS_HELD}"
            " AND id > ? AND id <= ? AND deadline_at <= ?",
            (workflow_id, after, ID_MAX if last is None else last, now),
        ).fetchall()

    def history(self, subjob_id: int, after: int, limit: int) -> Sequence[HistoryRow]:
        rows = self._db.execute(
            f"SELECT {HISTORY} FROM history WHERE subjob_id = ? AND seq > ? ORDER BY seq LIMIT ?",
            (subjob_id, after, limit),
        )
        return [HistoryRow(*row) for row in rows]

    def history_of(self, subjob_id: int, events: Sequence[str]) -> Sequence[HistoryRow]:
        rows = self._db.execute(
            f"SELECT {HISTORY} FROM history WHERE subjob_id = ?"
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

    def refused(self, subjob_id: int, request_id: str) -> HistoryRow | None:
        row = self._db.execute(
            f"SELECT {HISTORY} FROM history WHERE subjob_id = ? AND request_id = ?"
            " AND event = 'attempt-refused'",
            (subjob_id, request_id),
        ).fetchone()
        return HistoryRow(*row) if row else None

    def audit_entries(
        self, kind: str | None, after: int, limit: int
    ) -> Sequence[tuple[int, AuditRow]]:
        of_kind = "" if kind is None else "kind = ? AND "
        rows = self._db.execute(
            f"SELECT id, {DEED} FROM deed WHERE {of_kind}id > ? ORDER BY id LIMIT ?",
            (*(() if kind is None else (kind,)), after, limit),
        )
        return [(row[0], AuditRow(*row[1:])) for row in rows]

    def revocations(self, since: float) -> Sequence[AuditRow]:
        rows = self._db.execute(
            f"SELECT {DEED} FROM deed WHERE kind = 'revoke-token' AND at >= ? ORDER BY id",
            (since,),
        )
        return [AuditRow(*row) for row in rows]

    def close(self) -> None:
        self._db.close()


def connected(path: Path, read_only: bool = False) -> sqlite3.Connection:
    """Return a connection in autocommit mode; raises BadConfig."""
    uri = path.as_uri() + ("?mode=ro" if read_only else "")
    try:
        # Each connection is used by one thread at a time, but not always by the one that made it.
        return sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=64
        )
    except sqlite3.Error as problem:
        raise BadConfig(f"store {path} cannot be opened: {problem}") from problem
