"""The statements of a turn; each takes a whole batch, and finds its rows by an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from htlease.subjob import REQUESTS_KEPT
from htlease_server.postgresql.arrays import bigints, byte_strings, floats, integers, texts
from htlease_server.postgresql.reader import FLAG, MAINTENANCE, WORKFLOW
from htlease_server.store import DeedRow, HistoryRow, SubjobRow, WorkflowRow

_BY_NAME = (
    " FROM unnest(%b::text[], %b::text[]) WITH ORDINALITY AS wanted (workflow, name, nth)"
    " JOIN workflow ON workflow.name = wanted.workflow"
    " JOIN subjob ON subjob.workflow_id = workflow.id AND subjob.name = wanted.name"
)
LOCK = (
    "SELECT subjob_id FROM lease WHERE subjob_id = ANY"
    f" (%b::bigint[] || ARRAY (SELECT subjob.id{_BY_NAME})) ORDER BY subjob_id FOR UPDATE"
)
#: The snapshot of a subjob that has not changed since it was read is not sent again.
READ_KNOWN = (
    "SELECT subjob.id, seq, deadline_at,"
    " CASE WHEN seq = known.known_seq THEN NULL ELSE snapshot END"
    " FROM unnest(%b::bigint[], %b::bigint[]) AS known (id, known_seq)"
    " JOIN subjob ON subjob.id = known.id JOIN lease ON subjob_id = subjob.id"
)
READ_NAMED = (
    f"SELECT nth, subjob.id, workflow_id, seq, deadline_at, snapshot{_BY_NAME}"
    " JOIN lease ON subjob_id = subjob.id"
)
READ_REQUESTS = (
    "SELECT subjob_id, request_id, digest FROM unnest(%b::bigint[]) AS wanted (id)"
    " CROSS JOIN LATERAL (SELECT subjob_id, seq, request_id, digest FROM history"
    " WHERE subjob_id = wanted.id AND digest IS NOT NULL ORDER BY seq DESC"
    f" LIMIT {REQUESTS_KEPT}) AS accepted ORDER BY subjob_id, seq"
)
WORKFLOWS = f"SELECT {WORKFLOW} FROM workflow WHERE name = ANY (%b::text[])"
LOCK_WORKFLOWS = f"{WORKFLOWS} ORDER BY name FOR NO KEY UPDATE"
LOCK_WINDOWS = "SELECT pg_advisory_xact_lock(7597121900)"
RENEW = (
    "UPDATE lease SET deadline_at = renewed.deadline_at, ttl_seconds = renewed.ttl_seconds"
    " FROM unnest(%b::bigint[], %b::float8[], %b::float8[])"
    " AS renewed (subjob_id, deadline_at, ttl_seconds)"
    " WHERE lease.subjob_id = renewed.subjob_id AND {clock} < %b"
)
SIGN_OF_LIFE = (
    "UPDATE server_run SET alive_at = %b WHERE alive_at < %b AND id ="
    # Another server at it does as well.
    " (SELECT id FROM server_run ORDER BY id DESC LIMIT 1 FOR UPDATE SKIP LOCKED)"
)
PUT_MAINTENANCE = (
    f"INSERT INTO maintenance ({MAINTENANCE}, version)"
    " SELECT %b, %b, %b, %b, coalesce(max(version), 0) + 1 FROM maintenance"
    " ON CONFLICT (started_at) DO UPDATE SET until_at = excluded.until_at,"
    " reason = excluded.reason, actor = excluded.actor, version = excluded.version"
)
LOCK_FLAGS = "SELECT pg_advisory_xact_lock(7597121901)"
PUT_FLAG = (
    f"INSERT INTO flag ({FLAG}, version)"
    " SELECT %b, %b::integer, %b, %b, %b, coalesce(max(version), 0) + 1 FROM flag"
    " ON CONFLICT (name) DO UPDATE SET is_up = excluded.is_up, reason = excluded.reason,"
    " actor = excluded.actor, changed_at = excluded.changed_at, version = excluded.version"
)
_COLUMN = {
    "bigint": bigints,
    "integer": integers,
    "float8": floats,
    "text": texts,
    "bytea": byte_strings,
}


class Insert:
    """An INSERT of a batch of rows in one statement; `columns` are pairs of name and type."""

    def __init__(self, table: str, columns: Sequence[tuple[str, str]], on_conflict: str) -> None:
        names = ", ".join(name for name, _ in columns)
        arrays = ", ".join(f"%b::{kind}[]" for _, kind in columns)
        self.query = f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays}) {on_conflict}"
        self._encoders: list[Any] = [_COLUMN[kind] for _, kind in columns]

    def given(self, rows: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return the parameters for some rows."""
        columns = zip(*rows, strict=True)
        return [encode(column) for encode, column in zip(self._encoders, columns, strict=True)]


def _upsert(table: str, columns: Sequence[tuple[str, str]], fixed: Sequence[str]) -> Insert:
    changed = ", ".join(f"{name} = excluded.{name}" for name, _ in columns if name not in fixed)
    on_conflict = f"ON CONFLICT ({columns[0][0]}) DO UPDATE SET {changed}"
    return Insert(table, columns, on_conflict)


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
COUNT = Insert(
    "subjob_count",
    [
        ("workflow_id", "bigint"),
        ("status", "text"),
        ("share", "bigint"),
        ("subjobs", "bigint"),
        ("changed_at", "float8"),
    ],
    "ON CONFLICT (workflow_id, status, share) DO UPDATE SET"
    " subjobs = subjob_count.subjobs + excluded.subjobs,"
    " changed_at = greatest(subjob_count.changed_at, excluded.changed_at)",
)
ADD_HISTORY = Insert("history", _typed(HistoryRow._fields), "")
ADD_DEEDS = Insert("deed", _typed(DeedRow._fields), "")
ADD_KNOWN_IDS = Insert("known_id", _typed(("id_text", "subjob_id")), "ON CONFLICT DO NOTHING")
