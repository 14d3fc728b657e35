"""The statements of a batch; each takes a whole batch, and finds its rows by an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors
from psycopg.pq import ExecStatus, Format

from htlease.rules.state import REQUESTS_KEPT
from htlease_server.store.base import (
    AuditRow,
    FlagRow,
    HistoryRow,
    MaintenanceRow,
    SubjobRow,
    WorkflowRow,
)
from htlease_server.store.postgresql.bulk_arrays import (
    bigints,
    byte_strings,
    floats,
    integers,
    texts,
)
from htlease_server.store.sql import WORKFLOW

_BY_NAME = (
    " FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (workflow, name, nth)"
    " JOIN workflow ON workflow.name = wanted.workflow"
    " JOIN subjob ON subjob.workflow_id = workflow.id AND subjob.name = wanted.name"
)
LOCK = (
    "SELECT subjob_id FROM lease WHERE subjob_id = ANY"
    f" ($3::bigint[] || ARRAY (SELECT subjob.id{_BY_NAME})) ORDER BY subjob_id FOR UPDATE"
)
#: The snapshot of a subjob that has not changed since it was read is not sent again.
READ_KNOWN = (
    "SELECT subjob.id, seq, deadline_at,"
    " CASE WHEN seq = known.known_seq THEN NULL ELSE snapshot END"
    " FROM unnest($1::bigint[], $2::bigint[]) AS known (id, known_seq)"
    " JOIN subjob ON subjob.id = known.id JOIN lease ON subjob_id = subjob.id"
)
READ_NAMED = (
    f"SELECT nth, subjob.id, workflow_id, seq, deadline_at, snapshot{_BY_NAME}"
    " JOIN lease ON subjob_id = subjob.id"
)
READ_REQUESTS = (
    "SELECT subjob_id, request_id, digest FROM unnest($1::bigint[]) AS wanted (id)"
    " CROSS JOIN LATERAL (SELECT subjob_id, seq, request_id, digest FROM history"
    " WHERE subjob_id = wanted.id AND digest IS NOT NULL ORDER BY seq DESC"
    f" LIMIT {REQUESTS_KEPT}) AS accepted ORDER BY subjob_id, seq"
)
LOCK_FREE = (
    "SELECT subjob_id FROM lease WHERE subjob_id = ANY ($1::bigint[])"
    " ORDER BY subjob_id FOR UPDATE SKIP LOCKED"
)
STILL_CLOSED = (
    "SELECT id FROM subjob WHERE id = ANY ($1::bigint[])"
    " AND status IN ('complete', 'failed', 'cancelled')"
)
BEGIN_TRIM = "INSERT INTO trimming SELECT unnest($1::bigint[])"
END_TRIM = "DELETE FROM trimming WHERE workflow_id = ANY ($1::bigint[])"
DROP_HISTORY = "DELETE FROM history WHERE subjob_id = ANY ($1::bigint[])"
DROP_KNOWN_IDS = (
    "DELETE FROM known_id USING unnest($1::text[], $2::bigint[]) AS gone (id_text, subjob_id)"
    " WHERE known_id.id_text = gone.id_text AND known_id.subjob_id = gone.subjob_id"
)
DROP_LEASES = "DELETE FROM lease WHERE subjob_id = ANY ($1::bigint[])"
DROP_SUBJOBS = "DELETE FROM subjob WHERE id = ANY ($1::bigint[])"
RAISE_FLOOR = "UPDATE fence_floor SET fence = greatest(fence, ($1::bigint[])[1]) WHERE id = 1"
WORKFLOWS = f"SELECT {WORKFLOW} FROM workflow WHERE name = ANY ($1::text[])"
LOCK_WORKFLOWS = f"{WORKFLOWS} ORDER BY name FOR NO KEY UPDATE"
LOCK_WINDOWS = "SELECT pg_advisory_xact_lock(7597121900)"
RENEW = (
    "UPDATE lease SET deadline_at = renewed.deadline_at, ttl_seconds = renewed.ttl_seconds"
    " FROM unnest($1::bigint[], $2::float8[], $3::float8[])"
    " AS renewed (subjob_id, deadline_at, ttl_seconds)"
    " WHERE lease.subjob_id = renewed.subjob_id AND {clock} < $4::float8"
)
SIGN_OF_LIFE = (
    "UPDATE server_run SET alive_at = $1::float8 WHERE alive_at < $1::float8 AND id ="
    # Another server at it does as well.
    " (SELECT id FROM server_run ORDER BY id DESC LIMIT 1 FOR UPDATE SKIP LOCKED)"
)
LOCK_FLAGS = "SELECT pg_advisory_xact_lock(7597121902)"
_COLUMN = {
    "bigint": bigints,
    "integer": integers,
    "float8": floats,
    "text": texts,
    "bytea": byte_strings,
}


class Insert:
    """An INSERT of a batch of rows in one statement; `columns` are pairs of name and type.

    With `has_version` the rows get a version above all that the table has.
    """

    def __init__(
        self,
        table: str,
        columns: Sequence[tuple[str, str]],
        on_conflict: str,
        has_version: bool = False,
    ) -> None:
        names = ", ".join([*(name for name, _ in columns), *(["version"] if has_version else [])])
        arrays = ", ".join(f"${nth}::{kind}[]" for nth, (_, kind) in enumerate(columns, 1))
        version = f", (SELECT coalesce(max(version), 0) + 1 FROM {table})" if has_version else ""
        self.query = (
            f"INSERT INTO {table} ({names}) SELECT given.*{version}"
            f" FROM unnest({arrays}) AS given {on_conflict}"
        )
        self._encoders: list[Any] = [_COLUMN[kind] for _, kind in columns]

    def given(self, rows: Sequence[tuple[Any, ...]]) -> list[bytes]:
        """Return the parameters for some rows."""
        columns = zip(*rows, strict=True)
        return [encode(column) for encode, column in zip(self._encoders, columns, strict=True)]

    def run(self, connection: psycopg.Connection[Any], rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert some rows over a connection that is no pipeline; raises psycopg.Error."""
        given = self.given(rows)
        formats = [Format.BINARY] * len(given)
        result = connection.pgconn.exec_params(self.query.encode(), given, param_formats=formats)
        if result.status != ExecStatus.COMMAND_OK:
            raise errors.error_from_result(result)


def _upsert(
    table: str,
    columns: Sequence[tuple[str, str]],
    fixed: Sequence[str],
    has_version: bool = False,
) -> Insert:
    names = [*(name for name, _ in columns), *(["version"] if has_version else [])]
    changed = ", ".join(f"{name} = excluded.{name}" for name in names if name not in fixed)
    on_conflict = f"ON CONFLICT ({columns[0][0]}) DO UPDATE SET {changed}"
    return Insert(table, columns, on_conflict, has_version)


_TYPES = {
    "id": "bigint",
    "workflow_id": "bigint",
    "subjob_id": "bigint",
    "fence": "bigint",
    "seq": "bigint",
    "attempt_number": "integer",
    "template": "integer",
    "at": "float8",
    "created_at": "float8",
    "updated_at": "float8",
    "deadline_at": "float8",
    "ttl_seconds": "float8",
    "started_at": "float8",
    "until_at": "float8",
    "changed_at": "float8",
    "is_up": "integer",
    "share": "bigint",
    "subjobs": "bigint",
    "digest": "bytea",
    "snapshot": "bytea",
}


def _typed(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, _TYPES.get(name, "text")) for name in names]


PUT_WORKFLOWS = _upsert("workflow", _typed(WorkflowRow._fields), fixed=("id", "name"))
PUT_SUBJOBS = _upsert("subjob", _typed(SubjobRow._fields[:-2]), fixed=("id", "workflow_id", "name"))
PUT_LEASES = _upsert(
    "lease", _typed(("subjob_id", "deadline_at", "ttl_seconds")), fixed=("subjob_id",)
)
PUT_MAINTENANCE = _upsert(
    "maintenance", _typed(MaintenanceRow._fields), fixed=("started_at",), has_version=True
)
PUT_FLAGS = _upsert("flag", _typed(FlagRow._fields), fixed=("name",), has_version=True)
COUNT = Insert(
    "subjob_count",
    _typed(("workflow_id", "status", "share", "subjobs", "changed_at")),
    "ON CONFLICT (workflow_id, status, share) DO UPDATE SET"
    " subjobs = subjob_count.subjobs + excluded.subjobs,"
    " changed_at = greatest(subjob_count.changed_at, excluded.changed_at)",
)
ADD_HISTORY = Insert("history", _typed(HistoryRow._fields), "")
ADD_DEEDS = Insert("deed", _typed(AuditRow._fields), "")
ADD_KNOWN_IDS = Insert("known_id", _typed(("id_text", "subjob_id")), "ON CONFLICT DO NOTHING")
