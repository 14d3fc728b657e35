"""Look-ups in the database over a connection of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg

from htlease.rules.attempt import SubjobKey
from htlease_server.store.base import (
    AuditRow,
    ClosedSubjob,
    FlagRow,
    HistoryRow,
    ListedRow,
    MaintenanceRow,
    Run,
    StoreFailed,
    SubjobRow,
    WorkflowRow,
)
from htlease_server.store.postgresql.connection import Database, why_not
from htlease_server.store.sql import (
    ALL_FLAGS,
    ALL_MAINTENANCE,
    DEED,
    HISTORY,
    ID_MAX,
    IS_HELD,
    SELECT_LISTED,
    SELECT_SUBJOB,
    WORKFLOW,
)

#: The database's clock is the only one: servers' clocks differ.
CLOCK = "extract(epoch FROM clock_timestamp())::float8"
#: A run's `alive_at` stays this far behind, longer than a batch may take from its look at the clock
#: to its commit. So whatever commits after it was decided later than that.
ALIVE_MARGIN_SECONDS = 10.0
#: Nobody waits longer for a page.
_TIMEOUT = "20s"


class Moment(NamedTuple):
    """What the database says of time."""

    clock_at: float
    #: The newest run, and until when it was surely alive.
    run_id: int
    alive_at: float
    #: Of the last change of a maintenance window.
    windows: int
    #: Every grant to a subjob whose earlier fences are not known here is above it.
    fence_floor: int
    #: Of the last change of a flag.
    flags: int

    @property
    def version(self) -> tuple[int, int]:
        """What has to be read again when it differs."""
        return self.run_id, self.windows

    @property
    def now(self) -> float:
        """The database's clock; a new primary's may be behind by a little."""
        return max(self.clock_at, self.alive_at + ALIVE_MARGIN_SECONDS)


def moment_query(clock: str) -> str:
    """Return the query of a `Moment` by a clock."""
    return (
        f"SELECT {clock}, coalesce(run.id, 0), coalesce(run.alive_at, 0),"
        " (SELECT coalesce(max(version), 0) FROM maintenance), (SELECT fence FROM fence_floor),"
        " (SELECT coalesce(max(version), 0) FROM flag)"
        " FROM (SELECT 1) AS one LEFT JOIN"
        " (SELECT id, alive_at FROM server_run ORDER BY id DESC LIMIT 1) AS run ON true"
    )


class PostgresReader:
    """Look-ups; connects again when the connection is lost, and raises StoreFailed."""

    def __init__(self, database: Database, clock: str) -> None:
        self._database = database
        self._moment = moment_query(clock)
        self._connection: psycopg.Connection[Any] | None = None

    def _rows(self, query: str, *given: Any) -> list[tuple[Any, ...]]:
        """Ask, over a new connection when the one we have has died since."""
        for is_second in (self._connection is None, True):
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = self._database.connect(
                        statement_timeout=_TIMEOUT, default_transaction_read_only="on"
                    )
                cursor = self._connection.cursor(binary=True)
                return cursor.execute(query.encode(), given).fetchall()
            except psycopg.Error as problem:
                is_lost = self._connection is None or self._connection.closed
                if is_second or not is_lost:
                    raise StoreFailed(f"store {self._database.name} {why_not(problem)}") from None
        raise AssertionError("unreachable")

    def moment(self) -> Moment:
        """Return what the database says of time."""
        return Moment(*self._rows(self._moment)[0])

    def runs(self) -> Sequence[Run]:
        """Return all runs, oldest first."""
        rows = self._rows("SELECT started_at, alive_at FROM server_run ORDER BY id")
        return [Run(*row) for row in rows]

    def maintenance(self) -> Sequence[MaintenanceRow]:
        """Return all maintenance windows, oldest first."""
        rows = self._rows(ALL_MAINTENANCE)
        return [MaintenanceRow(*row) for row in rows]

    def flags(self) -> Sequence[FlagRow]:
        rows = self._rows(ALL_FLAGS)
        return [FlagRow(*row) for row in rows]

    def workflow(self, name: str) -> WorkflowRow | None:
        rows = self._rows(f"SELECT {WORKFLOW} FROM workflow WHERE name = %s", name)
        return WorkflowRow(*rows[0]) if rows else None

    def workflows(self, after: str, limit: int) -> Sequence[WorkflowRow]:
        rows = self._rows(
            f"SELECT {WORKFLOW} FROM workflow WHERE name > %s ORDER BY name LIMIT %s", after, limit
        )
        return [WorkflowRow(*row) for row in rows]

    def subjob(self, key: SubjobKey) -> SubjobRow | None:
        rows = self._rows(
            f"{SELECT_SUBJOB} WHERE name = %s"
            " AND workflow_id = (SELECT id FROM workflow WHERE name = %s)",
            key.subjob,
            key.workflow,
        )
        return SubjobRow(*rows[0]) if rows else None

    def subjobs(self, workflow_id: int, after: str, limit: int) -> Sequence[ListedRow]:
        rows = self._rows(
            f"{SELECT_LISTED} WHERE workflow_id = %s AND subjob.name > %s"
            " ORDER BY subjob.name LIMIT %s",
            workflow_id,
            after,
            limit,
        )
        return [ListedRow(*row) for row in rows]

    def subjobs_known_as(self, id_text: str, limit: int) -> Sequence[ListedRow]:
        rows = self._rows(
            f"{SELECT_LISTED} WHERE subjob.id IN"
            " (SELECT subjob_id FROM known_id WHERE id_text = %s)"
            " ORDER BY workflow.name, subjob.name LIMIT %s",
            id_text,
            limit,
        )
        return [ListedRow(*row) for row in rows]

    def counts(self, workflow_id: int) -> dict[str, int]:
        rows = self._rows(
            "SELECT status, sum(subjobs)::bigint FROM subjob_count WHERE workflow_id = %s"
            " GROUP BY status HAVING sum(subjobs) > 0",
            workflow_id,
        )
        return dict(rows)

    def totals(self) -> dict[str, int]:
        rows = self._rows("SELECT status, sum(subjobs)::bigint FROM subjob_count GROUP BY status")
        return dict(rows)

    def closed_workflows(
        self, before: float, after: int, limit: int
    ) -> Sequence[tuple[int, str, int]]:
        rows = self._rows(
            "SELECT workflow_id, workflow.name, sum(subjobs)::bigint FROM subjob_count"
            " JOIN workflow ON workflow.id = workflow_id WHERE workflow_id > %s"
            " GROUP BY workflow_id, workflow.name HAVING sum(subjobs) > 0 AND max(changed_at) < %s"
            " AND sum(CASE WHEN status IN ('complete', 'failed', 'cancelled') THEN 0"
            " ELSE subjobs END) = 0 ORDER BY workflow_id LIMIT %s",
            after,
            before,
            limit,
        )
        return [(workflow_id, name, subjobs) for workflow_id, name, subjobs in rows]

    def closed_subjobs(self, workflow_id: int, limit: int) -> Sequence[ClosedSubjob]:
        rows = self._rows(
            "SELECT id, name, status, fence FROM subjob WHERE workflow_id = %s"
            " AND status IN ('complete', 'failed', 'cancelled') LIMIT %s",
            workflow_id,
            limit,
        )
        return [ClosedSubjob(*row) for row in rows]

    def nth_held(self, workflow_id: int, after: int, nth: int) -> int | None:
        rows = self._rows(
            f"SELECT id FROM subjob WHERE workflow_id = %s AND {IS_HELD}"
            " AND id > %s ORDER BY id OFFSET %s LIMIT 1",
            workflow_id,
            after,
            nth - 1,
        )
        return rows[0][0] if rows else None

    def overdue(
        self, workflow_id: int, now: float, after: int = 0, last: int | None = None
    ) -> Sequence[tuple[int, str, float, float]]:
        return [
            (row_id, status, deadline_at, ttl_seconds)
            for row_id, status, deadline_at, ttl_seconds in self._rows(
                "SELECT id, status, deadline_at, ttl_seconds FROM subjob JOIN lease"
                f" ON subjob_id = id WHERE workflow_id = %s AND {IS_HELD}"
                " AND id > %s AND id <= %s AND deadline_at <= %s::float8",
                workflow_id,
                after,
                ID_MAX if last is None else last,
                now,
            )
        ]

    def history(self, subjob_id: int, after: int, limit: int) -> Sequence[HistoryRow]:
        rows = self._rows(
            f"SELECT {HISTORY} FROM history WHERE subjob_id = %s AND seq > %s"
            " ORDER BY seq LIMIT %s",
            subjob_id,
            after,
            limit,
        )
        return [HistoryRow(*row) for row in rows]

    def history_of(self, subjob_id: int, events: Sequence[str]) -> Sequence[HistoryRow]:
        rows = self._rows(
            f"SELECT {HISTORY} FROM history WHERE subjob_id = %s AND event = ANY (%s) ORDER BY seq",
            subjob_id,
            list(events),
        )
        return [HistoryRow(*row) for row in rows]

    def requests(self, subjob_id: int, limit: int) -> Sequence[tuple[str, bytes]]:
        rows = self._rows(
            "SELECT request_id, digest FROM history WHERE subjob_id = %s AND digest IS NOT NULL"
            " ORDER BY seq DESC LIMIT %s",
            subjob_id,
            limit,
        )
        return [(request_id, digest) for request_id, digest in reversed(rows)]

    def refused(self, subjob_id: int, request_id: str) -> HistoryRow | None:
        rows = self._rows(
            f"SELECT {HISTORY} FROM history WHERE subjob_id = %s AND request_id = %s"
            " AND event = 'attempt-refused'",
            subjob_id,
            request_id,
        )
        return HistoryRow(*rows[0]) if rows else None

    def audit_entries(
        self, kind: str | None, after: int, limit: int
    ) -> Sequence[tuple[int, AuditRow]]:
        of_kind, given = ("", ()) if kind is None else ("kind = %s AND ", (kind,))
        rows = self._rows(
            f"SELECT id, {DEED} FROM deed WHERE {of_kind}id > %s ORDER BY id LIMIT %s",
            *given,
            after,
            limit,
        )
        return [(row[0], AuditRow(*row[1:])) for row in rows]

    def revocations(self, since: float) -> Sequence[AuditRow]:
        rows = self._rows(
            f"SELECT {DEED} FROM deed WHERE kind = 'revoke-token' AND at >= %s::float8 ORDER BY id",
            since,
        )
        return [AuditRow(*row) for row in rows]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
