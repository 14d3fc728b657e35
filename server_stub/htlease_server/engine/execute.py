"""What each request does within a batch: which state it meets, and what is kept of its outcome.

The rules themselves are in `htlease.rules.acquire`. Nothing here waits, and nothing is on the disk
before the state source commits the batch.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from htlease.rules import messages as m
from htlease.rules.acquire import RETRY_MIN_SECONDS, decide, replayed_reply
from htlease.rules.attempt import SubjobKey
from htlease.rules.flags import held_back
from htlease.rules.quotas import over_quota
from htlease.rules.state import HELD, SubjobState, apply
from htlease_server.engine.batch import Batch, Crashed, PendingRequest
from htlease_server.engine.history import (
    EVENT_NAMES,
    data_of,
    event_from,
    fingerprints_with,
    ids_in,
)
from htlease_server.engine.site.audit import PUT_FLAG, PUT_WORKFLOW, TRIM, AuditEntry
from htlease_server.engine.site.flags import PutFlag, down_for
from htlease_server.engine.site.maintenance import WindowChange
from htlease_server.engine.site.retention import Trim
from htlease_server.engine.site.workflows import PutWorkflow, plan_in
from htlease_server.engine.states.cache import Entry
from htlease_server.engine.states.state_source import StateSource
from htlease_server.logs import note
from htlease_server.models.request_models import CommandRequest
from htlease_server.store.base import AuditRow, HistoryRow, MaintenanceRow, WorkflowRow

_GOING = m.Rejection(
    "overloaded",
    "this subjob has been closed for long and is being trimmed; come again",
    retry_after_seconds=1.0,
)


_REUSED = m.Rejection("request-id-reused", "this request ID came before with another call or body")
#: Refusals of what may be granted later; the others are for ever, whoever repeats them.
_MAY_TURN = ("lease-still-live", "subjob-closed", "phase-order", "blocked")


def is_bare_renewal(pending: PendingRequest) -> bool:
    """Tell whether a request only renews; it leaves no record, and it may reach the disk late."""
    command_request = pending.sent
    return (
        isinstance(command_request, CommandRequest)
        and isinstance(command_request.command, m.Renew)
        and command_request.command.details is None
    )


def execute(batch: Batch, states: StateSource, pending: PendingRequest) -> None:
    """Decide one request and note its answer; a mistake of ours hurts no other request."""
    try:
        if isinstance(pending.sent, PutWorkflow):
            _put_workflow(batch, states, pending, pending.sent)
        elif isinstance(pending.sent, WindowChange):
            _change_windows(batch, states, pending, pending.sent)
        elif isinstance(pending.sent, PutFlag):
            _put_flag(batch, states, pending, pending.sent)
        elif isinstance(pending.sent, Trim):
            _trim(batch, states, pending, pending.sent)
        elif isinstance(pending.sent, AuditEntry):
            row = _add_audit_entry(batch, pending, pending.sent)
            batch.answer(pending, row, is_after_commit=True)
        else:
            _command(batch, states, pending, pending.sent)
    except Exception:
        note(logging.ERROR, "deciding a request failed", trace=True, subjob=pending.key)
        batch.answer(pending, Crashed(), is_after_commit=False)


def _command(
    batch: Batch, states: StateSource, pending: PendingRequest, command_request: CommandRequest
) -> None:
    key, command = pending.key, command_request.command
    assert key is not None
    others = _others(states, pending, key.workflow)
    if others is not None:
        batch.answer(pending, others, is_after_commit=False)
        return
    if states.deleting and key in states.deleting:
        batch.answer(pending, _GOING, is_after_commit=False)
        return
    entry = states.entry(key, batch.now)
    known = None
    if entry is not None and not is_bare_renewal(pending):
        known = states.requests_of(entry, command_request.request_id).get(
            command_request.request_id
        )
        if known is None and command_request.request_id in entry.refused:
            digest, refused = entry.refused[command_request.request_id]
            again = refused if digest == command_request.digest else _REUSED
            batch.answer(pending, again, is_after_commit=entry.unwritten > 0)
            return
    decision: m.Decision
    if known is not None:
        assert entry is not None
        if known.startswith(command_request.digest):
            epoch = known[len(command_request.digest) :]
            decision = (
                m.Accepted((), m.Enrolled(int.from_bytes(epoch, "big")))
                if epoch
                else replayed_reply(entry.state, command, batch.now)
            )
        else:
            decision = _REUSED
    elif isinstance(command, (m.Enroll, m.Acquire)):
        workflow = states.book.get(key.workflow)
        if workflow is not None and workflow.template:
            decision = m.Rejection(
                "invalid",
                f"{key.workflow} is a template; copy it (copy_of) and run the copy",
                field="workflow",
            )
        else:
            if entry is None:
                entry = _new_entry(states, workflow or _new_workflow(batch, states, pending))
            if command.plan is None and entry.state.plan is None and workflow is not None:
                command = replace(command, plan=plan_in(workflow))
            state = entry.state
            if state.fence < states.fence_floor and state.status not in HELD:
                state = replace(state, fence=states.fence_floor)
            decision = _decided(states, key, entry, state, command, batch.now)
    elif entry is None:
        decision = m.Rejection("unknown-subjob", f"there is no subjob {key}; acquire it first")
    else:
        decision = _decided(states, key, entry, entry.state, command, batch.now)

    if entry is not None and known is None:
        if isinstance(decision, m.Rejection):
            if decision.code in _MAY_TURN:
                entry.remember_refused(command_request.request_id, command_request.digest, decision)
        elif isinstance(command, m.Acquire) and decision.events:
            decision = (
                _refused_before(states, entry, command_request.request_id, command) or decision
            )
    if entry is not None and decision.events:
        is_accepted = isinstance(decision, m.Accepted)
        _keep(batch, states, pending, command_request, entry, decision.events, is_accepted)
    answer = decision.reply if isinstance(decision, m.Accepted) else decision
    batch.answer(pending, answer, is_after_commit=entry is not None and entry.unwritten > 0)


def _refused_before(
    states: StateSource, entry: Entry, request_id: str, command: m.Acquire
) -> m.Rejection | None:
    """Return the answer that this very request of an attempt has got before, if it was refused.

    It may come late, from an attempt that is gone; who is there asks again, under another ID.
    """
    digest = m.nonce_digest(command.nonce)
    if all(whom != digest for _, whom in entry.state.refusals):
        return None
    row = states.refused(entry, request_id)
    if row is None:
        return None
    event = event_from(row)
    assert isinstance(event, m.AttemptRefused)
    is_closed = event.code == "subjob-closed"
    outcome = event.why.rpartition(" ")[2] if is_closed else None
    seconds = RETRY_MIN_SECONDS if event.code == "lease-still-live" else None
    return m.Rejection(event.code, event.why, retry_after_seconds=seconds, outcome=outcome)


def _decided(
    states: StateSource,
    key: SubjobKey,
    entry: Entry,
    state: SubjobState,
    command: m.Command,
    now: float,
) -> m.Decision:
    """Return what the rules make of a command, unless a quota or a flag holds it back."""
    beyond = over_quota(state, command, entry.seq, entry.size_bytes)
    if beyond is not None:
        return beyond
    decision = decide(state, command, now)
    if states.flags and isinstance(command, (m.Enter, m.Acquire)):
        down = down_for(states.flags, states.book.get(key.workflow))
        decision = held_back(decision, state, command, down, now)
    return decision


def _keep(
    batch: Batch,
    states: StateSource,
    pending: PendingRequest,
    command_request: CommandRequest,
    entry: Entry,
    events: tuple[m.Event, ...],
    is_accepted: bool,
) -> None:
    """Change an entry; only what is in `batch.changed` is sure to be durable with this batch."""
    key, state = pending.key, entry.state
    assert key is not None
    is_renewal = isinstance(events[0], m.LeaseRenewed)
    # A lease that had lapsed must not be revived by word of mouth: after a crash the store
    # would say that it lapsed, and give it to another.
    # And the first renewal after a start tells that the holder is not gone: `DowntimeCorrection`.
    if is_renewal and state.is_live(batch.now) and entry.is_heard:
        entry.state = apply(state, events, batch.now)
        if key not in batch.changed:
            states.renewed(entry)
        return
    if key not in batch.changed:
        is_new = entry.seq == 0
        batch.changed[key] = (entry, None if is_new else state, entry.seq)
        if not entry.unwritten:
            entry.was_heard = entry.is_heard
        entry.unwritten += 1
        if is_new:
            states.add(key, entry)
            batch.write_set.known_ids.append((key.subjob, entry.id))
    entry.state = apply(state, events, batch.now)
    if entry.state.deadline_at != state.deadline_at:
        entry.is_heard = True
    if is_renewal:
        return
    digest = None
    if is_accepted:
        digest = command_request.digest
        if isinstance(command_request.command, m.Enroll):
            assert isinstance(events[0], (m.SubmissionEnrolled, m.SubmissionSeen))
            # The state does not tell which of several requests has made which epoch.
            digest += events[0].epoch.to_bytes(8, "big")
        requests = states.requests_of(entry, command_request.request_id)
        requests[command_request.request_id] = digest
        batch.remembered.append(requests)
        if entry.fingerprints is not None:
            entry.fingerprints = fingerprints_with(entry.fingerprints, command_request.request_id)
    for event in events:
        entry.seq += 1
        batch.write_set.history.append(
            HistoryRow(
                entry.id,
                entry.seq,
                batch.now,
                EVENT_NAMES[type(event)],
                getattr(event, "fence", None),
                pending.actor,
                command_request.request_id,
                digest,
                command_request.client_at,
                pending.via,
                data_of(event),
            )
        )
        digest = None
        batch.write_set.known_ids.extend((id_text, entry.id) for id_text in ids_in(event))


def _put_workflow(
    batch: Batch, states: StateSource, pending: PendingRequest, put: PutWorkflow
) -> None:
    before = states.book.get(put.name)
    decision = _others(states, pending, put.name) or states.book.changed(
        put, batch.now, pending.owner
    )
    if isinstance(decision, WorkflowRow) and decision is not before:
        _add_audit_entry(batch, pending, AuditEntry(PUT_WORKFLOW, put.name))
        states.book.keep(decision)
        batch.write_set.workflows.append(decision)
    batch.answer(pending, decision, is_after_commit=True)


def _change_windows(
    batch: Batch, states: StateSource, pending: PendingRequest, change: WindowChange
) -> None:
    downtime = states.downtime
    rows = change.rows(downtime.windows, batch.now, pending.actor)
    if isinstance(rows, m.Rejection):
        batch.answer(pending, rows, is_after_commit=True)
        return
    if not batch.write_set.maintenance:
        batch.windows_before = downtime.windows
    changed = {row.started_at for row in rows}
    others = (window for window in downtime.windows if window.started_at not in changed)
    downtime.windows = (*others, *rows)
    batch.write_set.maintenance += rows
    _add_audit_entry(batch, pending, change.audit_entry())
    # Who ends what is not open is told so by what is there afterwards.
    ended = MaintenanceRow(batch.now, batch.now, None, pending.actor)
    batch.answer(pending, rows[-1] if rows else ended, is_after_commit=True)


def _put_flag(batch: Batch, states: StateSource, pending: PendingRequest, put: PutFlag) -> None:
    if not batch.write_set.flags:
        batch.flags_before = states.flags
    row = put.row(batch.now, pending.actor)
    states.flags = {**states.flags, row.name: row}
    batch.write_set.flags.append(row)
    data = {"flag": put.name, "is_up": put.is_up, "reason": put.reason}
    _add_audit_entry(batch, pending, AuditEntry(PUT_FLAG, data=data))
    batch.answer(pending, row, is_after_commit=True)


def _trim(batch: Batch, states: StateSource, pending: PendingRequest, trim: Trim) -> None:
    trimmed = states.trim(batch, trim)
    if trimmed.subjobs:
        data = {"subjobs": trimmed.subjobs, "events": trimmed.events}
        _add_audit_entry(batch, pending, AuditEntry(TRIM, trim.workflow, data=data))
    batch.answer(pending, trimmed, is_after_commit=True)


def _add_audit_entry(batch: Batch, pending: PendingRequest, audit_entry: AuditEntry) -> AuditRow:
    row = audit_entry.row(batch.now, pending.actor, pending.via)
    batch.write_set.audit_entries.append(row)
    return row


def _others(states: StateSource, pending: PendingRequest, workflow: str) -> m.Rejection | None:
    """Refuse what is another's for whose scope is their own."""
    if not pending.is_own_only:
        return None
    row = states.book.get(workflow)
    if row is None or row.made_by == pending.owner:
        return None
    return m.Rejection(
        "forbidden", f"workflow {workflow} belongs to somebody else; choose another name"
    )


def _new_workflow(batch: Batch, states: StateSource, pending: PendingRequest) -> WorkflowRow:
    assert pending.key is not None
    row = states.book.new(pending.key.workflow, batch.now, pending.owner)
    states.book.keep(row)
    batch.write_set.workflows.append(row)
    return row


def _new_entry(states: StateSource, workflow: WorkflowRow) -> Entry:
    entry = Entry(states.new_subjob_id(), workflow.id, SubjobState(), 0, 0)
    entry.requests = {}
    return entry
