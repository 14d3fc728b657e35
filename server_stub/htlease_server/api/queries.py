"""The documents of the GET calls, read from the store beside the writer.

Every look-up runs in a small thread pool over connections of its own, so that a long one delays
no write. It sees whatever was acknowledged before it began: rows are committed first, and
renewals that are not on the disk yet are taken from the writer's memory.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.plan import PhaseSpec, phases_left
from htlease.rules.rollup import rollup
from htlease.rules.state import CLOSED, Status, SubjobState
from htlease.wire.protocol import rfc3339
from htlease_server.api.schema.admin_models import Audit
from htlease_server.counters import LOOK_UPS
from htlease_server.engine.commit.store_writer import RETRY_AFTER_SECONDS
from htlease_server.engine.history import (
    MILESTONES,
    attempts_of,
    closing_of,
    event_document,
    event_from,
    state_from,
)
from htlease_server.engine.site.audit import audit_document
from htlease_server.engine.site.flags import concerning, flag_document
from htlease_server.engine.site.maintenance import maintenance_document
from htlease_server.engine.states.expiry_counts import HELD_NAMES, CountSnapshot, ExpiryCounts
from htlease_server.engine.states.state_source import ReadContext, StateSource
from htlease_server.http.messages import Busy
from htlease_server.models import response_models as docs
from htlease_server.store.base import HistoryRow, ListedRow, Reader, WorkflowRow

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
_THREADS = 2
#: Look-ups that wait for a thread; who comes then is to come again.
WAITING_MAX = 200
#: How long at most a look-up gives way to writes.
_GIVE_WAY_SECONDS = 1.0
_LOOK_SECONDS = 0.01

_T = TypeVar("_T")


class Queries:
    """Answers GET calls; None stands for a thing that is not there."""

    def __init__(self, states: StateSource, has_writes: Callable[[], bool] = lambda: False) -> None:
        """`has_writes` tells whether writes are waiting, which a look-up then lets pass."""
        self._states = states
        self._has_writes = has_writes
        self._waiting = 0
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="htlease-reader")
        self._local = threading.local()
        self._readers: list[Reader] = []
        self._expiry_counts = ExpiryCounts(self._run)

    def close(self) -> None:
        """End the threads and let go of the store."""
        self._expiry_counts.close()
        self._pool.shutdown()
        for reader in self._readers:
            reader.close()

    async def _run(self, look_up: Callable[[Reader, ReadContext], _T]) -> _T:
        def in_thread() -> _T:
            reader = getattr(self._local, "reader", None)
            if reader is None:
                reader = self._local.reader = self._states.reader()
                self._readers.append(reader)
            return look_up(reader, self._states.read_context(reader))

        if self._waiting >= WAITING_MAX:
            waiting = f"{self._waiting} look-ups are waiting already"
            raise Busy(LOOK_UPS, waiting, RETRY_AFTER_SECONDS)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            until = loop.time() + _GIVE_WAY_SECONDS
            while self._has_writes() and loop.time() < until:
                await asyncio.sleep(_LOOK_SECONDS)
            return await loop.run_in_executor(self._pool, in_thread)
        finally:
            self._waiting -= 1

    async def workflows(self, after: str, limit: int) -> docs.Workflows:
        """Return the list of workflows."""

        def look_up(reader: Reader, at: ReadContext) -> docs.Workflows:
            rows, snapshot = (
                reader.workflows(after, limit),
                self._expiry_counts.snapshot(reader, at),
            )
            listed = [_workflow(row, snapshot) for row in rows]
            return {"workflows": listed, "next": _next(rows, limit)}

        found = await self._run(look_up)
        self._expiry_counts.count()
        return found

    async def workflow(self, name: str, after: str, limit: int) -> docs.WorkflowDocument | None:
        """Return one workflow with a page of its subjobs."""

        def look_up(reader: Reader, at: ReadContext) -> docs.WorkflowDocument | None:
            row = reader.workflow(name)
            if row is None:
                return None
            subjobs = reader.subjobs(row.id, after, limit)
            return {
                **_workflow(row, self._expiry_counts.snapshot(reader, at)),
                "plan": None if row.plan is None else msgspec.json.decode(row.plan),
                "structure": None if row.structure is None else msgspec.json.decode(row.structure),
                "subjobs": [_summary(subjob, at) for subjob in subjobs],
                "next": _next(subjobs, limit),
            }

        found = await self._run(look_up)
        self._expiry_counts.count()
        return found

    async def totals(self) -> dict[str, int]:
        """Return how many subjobs have each stored status, a lapsed lease being an active one."""
        return await self._run(lambda reader, at: reader.totals())

    async def maintenance(self) -> docs.Maintenance:
        """Return the maintenance windows."""

        def look_up(reader: Reader, at: ReadContext) -> docs.Maintenance:
            return maintenance_document(at.downtime.windows, at.now)

        return await self._run(look_up)

    async def flags(self, workflow: str | None) -> docs.Flags:
        """Return the flags, or those that concern a workflow, which need not exist yet."""

        def look_up(reader: Reader, at: ReadContext) -> docs.Flags:
            rows = list(reader.flags())
            if workflow is not None:
                rows = concerning(rows, reader.workflow(workflow))
            return {"flags": [flag_document(row) for row in rows]}

        return await self._run(look_up)

    async def made_by(self, workflow: str) -> str | None:
        """Return to whom a workflow belongs; None when there is none, or nobody knows."""

        def look_up(reader: Reader, at: ReadContext) -> str | None:
            row = reader.workflow(workflow)
            return None if row is None else row.made_by

        return await self._run(look_up)

    async def audit_entries(self, kind: str | None, after: int, limit: int) -> Audit:
        """Return a page of what was done to the site itself, of one kind or all."""

        def look_up(reader: Reader, at: ReadContext) -> Audit:
            rows = reader.audit_entries(kind, after, limit)
            return {
                "deeds": [audit_document(entry_id, row) for entry_id, row in rows],
                "next": rows[-1][0] if len(rows) == limit else None,
            }

        return await self._run(look_up)

    async def closed_workflows(
        self, before: float, after: int, limit: int
    ) -> Sequence[tuple[int, str, int]]:
        """Return (row ID, name, subjobs) of workflows that have been closed since an instant."""
        return await self._run(lambda reader, at: reader.closed_workflows(before, after, limit))

    async def known_as(self, id_text: str) -> list[docs.SubjobSummary]:
        """Return the subjobs that were ever known by an ID."""

        def look_up(reader: Reader, at: ReadContext) -> list[docs.SubjobSummary]:
            rows = reader.subjobs_known_as(id_text, LIMIT_MAX)
            return [_summary(row, at) for row in rows]

        return await self._run(look_up)

    async def subjob(self, key: SubjobKey) -> docs.SubjobDocument | None:
        """Return everything known of one subjob."""

        def look_up(reader: Reader, at: ReadContext) -> docs.SubjobDocument | None:
            row = reader.subjob(key)
            if row is None:
                return None
            listed = ListedRow(
                row.id,
                key.workflow,
                *(getattr(row, name) for name in ListedRow._fields[2:]),
            )
            state = state_from(row.snapshot, row.deadline_at)
            history = reader.history_of(row.id, MILESTONES)
            return {
                **_summary(listed, at),
                **_state_document(state),
                "submissions": _submissions_of(history),
                "attempts": attempts_of(history),
                "closing": closing_of(history),
            }

        return await self._run(look_up)

    async def history(self, key: SubjobKey, after: int, limit: int) -> docs.HistoryPage | None:
        """Return a page of a subjob's history."""

        def look_up(reader: Reader, at: ReadContext) -> docs.HistoryPage | None:
            row = reader.subjob(key)
            if row is None:
                return None
            events = reader.history(row.id, after, limit)
            return {
                "events": [event_document(event) for event in events],
                "next": events[-1].seq if len(events) == limit else None,
            }

        return await self._run(look_up)


def _workflow(row: WorkflowRow, snapshot: CountSnapshot) -> docs.WorkflowSummary:
    counts, counted_at = snapshot.counts(row.id)
    return {
        "workflow": row.name,
        "state": rollup(counts),
        "counts": counts,
        "lapsed_counted_at": None if counted_at is None else rfc3339(counted_at),
        "labels": msgspec.json.decode(row.labels),
        "template": bool(row.template),
        "created_at": rfc3339(row.created_at),
        "made_by": row.made_by,
    }


def _summary(row: ListedRow, at: ReadContext) -> docs.SubjobSummary:
    status, expires_in_seconds = row.status, None
    if row.status in HELD_NAMES:
        deadline_at = at.deadline(row.id, row.deadline_at, row.ttl_seconds)
        if deadline_at > at.now:
            expires_in_seconds = deadline_at - at.now
        else:
            status = Status.LAPSED.value
    return {
        "workflow": row.workflow,
        "subjob": row.name,
        "status": status,
        "outcome": row.status if Status(row.status) in CLOSED else None,
        "phase": row.phase,
        "attempt_number": row.attempt_number,
        "attempt_id": row.attempt_id,
        "fence": row.fence,
        "host": row.host,
        "expires_in_seconds": expires_in_seconds,
        "updated_at": rfc3339(row.updated_at),
    }


def _next(rows: Any, limit: int) -> str | None:
    """Return the cursor of the page after this one."""
    return rows[-1].name if len(rows) == limit else None


def _state_document(state: SubjobState) -> docs.StateDocument:
    plan = state.plan
    left = () if plan is None or plan.profile else phases_left(plan, state.phases)
    return {
        "epoch": state.epoch,
        "plan": plan,
        "recalled_by": state.recalled_by,
        "job_hold": state.job_hold,
        "removed_jobs": state.removed_jobs,
        "exit_code": state.exit_code,
        "exit_signal": state.exit_signal,
        "phases": [
            _phase_document(spec, state.phases.get(spec.name), run=spec.name in left)
            for spec in (plan.phases if plan else ())
        ],
        "details": state.details,
        "details_phase": state.details_phase,
    }


def _phase_document(spec: PhaseSpec, known: m.PhaseRecord | None, run: bool) -> docs.PhaseDocument:
    record = known or m.PhaseRecord(spec.name)

    def instant(at: float | None) -> str | None:
        return None if at is None else rfc3339(at)

    return {
        "name": spec.name,
        "restart": spec.restart,
        "exclusive": spec.exclusive,
        "run": run,
        "entries": record.entries,
        "entered_at": instant(record.entered_at),
        "entered_fence": record.entered_fence,
        "completed_at": instant(record.completed_at),
        "completed_fence": record.completed_fence,
        "failed_at": instant(record.failed_at),
        "failed_fence": record.failed_fence,
        "reason": record.reason,
        "exit_code": record.exit_code,
        "artifacts": record.artifacts,
        "has_details": record.details is not None,
    }


def _submissions_of(rows: Any) -> list[docs.Submission]:
    """Return the submissions that a history tells of, one for each epoch and announcement."""
    found: list[docs.Submission] = []
    row: HistoryRow
    for row in rows:
        event = event_from(row)
        if isinstance(event, m.SubmissionEnrolled):
            found.append(
                {
                    "epoch": event.epoch,
                    "global_job_id": event.global_job_id,
                    "retry": event.retry,
                    "links": event.links,
                    "at": rfc3339(row.at),
                }
            )
        elif isinstance(event, m.SubmissionSeen):
            for submission in found:
                if submission["epoch"] == event.epoch and submission["global_job_id"] is None:
                    submission["global_job_id"] = event.global_job_id
    return found
