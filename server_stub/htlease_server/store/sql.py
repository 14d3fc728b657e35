"""What SQLite and PostgreSQL are asked in the same words: columns of rows, and whole tables."""

from __future__ import annotations

from htlease_server.store.base import (
    AuditRow,
    FlagRow,
    HistoryRow,
    MaintenanceRow,
    SubjobRow,
    WorkflowRow,
)

#: No row ID is above it.
ID_MAX = 2**63 - 1
#: Somebody has the lease, or had it and it has run out; an index of either store is of just these.
IS_HELD = "status IN ('active', 'recalled')"

HISTORY = ", ".join(HistoryRow._fields)
WORKFLOW = ", ".join(WorkflowRow._fields)
FLAG = ", ".join(FlagRow._fields)
DEED = ", ".join(AuditRow._fields)
MAINTENANCE = ", ".join(MaintenanceRow._fields)

SELECT_SUBJOB = f"SELECT {', '.join(SubjobRow._fields)} FROM subjob JOIN lease ON subjob_id = id"
#: Columns of `ListedRow`.
SELECT_LISTED = (
    "SELECT subjob.id, workflow.name, subjob.name, status, deadline_at, ttl_seconds, fence, phase,"
    " attempt_number, attempt_id, host, updated_at"
    " FROM subjob JOIN workflow ON workflow.id = subjob.workflow_id"
    " JOIN lease ON lease.subjob_id = subjob.id"
)
ALL_WORKFLOWS = f"SELECT {WORKFLOW} FROM workflow ORDER BY id"
ALL_SUBJOBS = f"{SELECT_SUBJOB} ORDER BY id"
HELD_SUBJOBS = f"{SELECT_SUBJOB} WHERE {IS_HELD}"
ALL_HISTORY = f"SELECT {HISTORY} FROM history ORDER BY subjob_id, seq"
ALL_MAINTENANCE = f"SELECT {MAINTENANCE} FROM maintenance ORDER BY started_at"
ALL_FLAGS = f"SELECT {FLAG} FROM flag ORDER BY name"
ALL_DEEDS = f"SELECT {DEED} FROM deed ORDER BY id"
