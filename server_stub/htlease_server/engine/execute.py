"""What each request does within a turn: which state it meets, and what is kept of its outcome.

The rules themselves are in `htlease.rules.acquire`. Nothing here waits, and nothing is on the disk
before the keeper commits the turn.
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
from htlease_server.engine.batch import Crashed, Turn, Waiting
from htlease_server.engine.history import EVENT_NAMES, data_of, event_from, ids_in, marks_with
from htlease_server.engine.site.audit import PUT_FLAG, PUT_WORKFLOW, TRIM, Deed
from htlease_server.engine.site.flags import PutFlag, down_for
from htlease_server.engine.site.maintenance import WindowChange
from htlease_server.engine.site.retention import Trim
from htlease_server.engine.site.workflows import PutWorkflow, plan_in
from htlease_server.engine.states.cache import Entry
from htlease_server.engine.states.state_source import Keeper
from htlease_server.logs import note
from htlease_server.models.request_models import Sent
from htlease_server.store.base import DeedRow, HistoryRow, MaintenanceRow, WorkflowRow

_GOING = m.Rejection(
    "overloaded",
    "this subjob has been closed for long and is being trimmed; come again",
    retry_after_seconds=1.0,
)


_REUSED = m.Rejection("request-id-reused", "this request ID came before with another call or body")
#: Refusals of what may be granted later; the others are for ever, whoever repeats them.
_MAY_TURN = ("lease-still-live", "subjob-closed", "phase-order", "blocked")


def is_bare_renewal(waiting: Waiting) -> bool:
    """Tell whether a request only renews; it leaves no record, and it may reach the disk late."""
    sent = waiting.sent
    return (
        isinstance(sent, Sent)
        and isinstance(sent.command, m.Renew)
        and sent.command.details is None
    )


def take(turn: Turn, keeper: Keeper, waiting: Waiting) -> None:
    """Decide one request and note its answer; a mistake of ours hurts no other request."""
    try:
        if isinstance(waiting.sent, PutWorkflow):
            _put_workflow(turn, keeper, waiting, waiting.sent)
        elif isinstance(waiting.sent, WindowChange):
            _change_windows(turn, keeper, waiting, waiting.sent)
        elif isinstance(waiting.sent, PutFlag):
            _put_flag(turn, keeper, waiting, waiting.sent)
        elif isinstance(waiting.sent, Trim):
            _trim(turn, keeper, waiting, waiting.sent)
        elif isinstance(waiting.sent, Deed):
            row = _note_deed(turn, waiting, waiting.sent)
            turn.answer(waiting, row, is_late=True)
        else:
            _command(turn, keeper, waiting, waiting.sent)
    except Exception:
        note(logging.ERROR, "deciding a request failed", trace=True, subjob=waiting.key)
        turn.answer(waiting, Crashed(), is_late=False)


def _command(turn: Turn, keeper: Keeper, waiting: Waiting, sent: Sent) -> None:
    key, command = waiting.key, sent.command
    assert key is not None
    others = _others(keeper, waiting, key.workflow)
    if others is not None:
        turn.answer(waiting, others, is_late=False)
        return
    if keeper.going and key in keeper.going:
        turn.answer(waiting, _GOING, is_late=False)
        return
    entry = keeper.entry(key, turn.now)
    known = None
    if entry is not None and not is_bare_renewal(waiting):
        known = keeper.requests_of(entry, sent.request_id).get(sent.request_id)
        if known is None and sent.request_id in entry.refused:
            digest, refused = entry.refused[sent.request_id]
            again = refused if digest == sent.digest else _REUSED
            turn.answer(waiting, again, is_late=entry.unwritten > 0)
            return
    decision: m.Decision
    if known is not None:
        assert entry is not None
        if known.startswith(sent.digest):
            epoch = known[len(sent.digest) :]
            decision = (
                m.Accepted((), m.Enrolled(int.from_bytes(epoch, "big")))
                if epoch
                else replayed_reply(entry.state, command, turn.now)
            )
        else:
            decision = _REUSED
    elif isinstance(command, (m.Enroll, m.Acquire)):
        workflow = keeper.book.get(key.workflow)
        if workflow is not None and workflow.template:
            decision = m.Rejection(
                "invalid",
                f"{key.workflow} is a template; copy it (copy_of) and run the copy",
                field="workflow",
            )
        else:
            if entry is None:
                entry = _new_entry(keeper, workflow or _new_workflow(turn, keeper, waiting))
            if command.plan is None and entry.state.plan is None and workflow is not None:
                command = replace(command, plan=plan_in(workflow))
            state = entry.state
            if state.fence < keeper.fence_floor and state.status not in HELD:
                state = replace(state, fence=keeper.fence_floor)
            decision = _decided(keeper, key, entry, state, command, turn.now)
    elif entry is None:
        decision = m.Rejection("unknown-subjob", f"there is no subjob {key}; acquire it first")
    else:
        decision = _decided(keeper, key, entry, entry.state, command, turn.now)

    if entry is not None and known is None:
        if isinstance(decision, m.Rejection):
            if decision.code in _MAY_TURN:
                entry.remember_refused(sent.request_id, sent.digest, decision)
        elif isinstance(command, m.Acquire) and decision.events:
            decision = _refused_before(keeper, entry, sent.request_id, command) or decision
    if entry is not None and decision.events:
        is_accepted = isinstance(decision, m.Accepted)
        _keep(turn, keeper, waiting, sent, entry, decision.events, is_accepted)
    answer = decision.reply if isinstance(decision, m.Accepted) else decision
    turn.answer(waiting, answer, is_late=entry is not None and entry.unwritten > 0)


def _refused_before(
    keeper: Keeper, entry: Entry, request_id: str, command: m.Acquire
) -> m.Rejection | None:
    """Return the answer that this very request of an attempt has got before, if it was refused.

    It may come late, from an attempt that is gone; who is there asks again, under another ID.
    """
    digest = m.nonce_digest(command.nonce)
    if all(whom != digest for _, whom in entry.state.refusals):
        return None
    row = keeper.refused(entry, request_id)
    if row is None:
        return None
    event = event_from(row)
    assert isinstance(event, m.AttemptRefused)
    is_closed = event.code == "subjob-closed"
    outcome = event.why.rpartition(" ")[2] if is_closed else None
    seconds = RETRY_MIN_SECONDS if event.code == "lease-still-live" else None
    return m.Rejection(event.code, event.why, retry_after_seconds=seconds, outcome=outcome)


def _decided(
    keeper: Keeper,
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
    if keeper.flags and isinstance(command, (m.Enter, m.Acquire)):
        down = down_for(keeper.flags, keeper.book.get(key.workflow))
        decision = held_back(decision, state, command, down, now)
    return decision


def _keep(
    turn: Turn,
    keeper: Keeper,
    waiting: Waiting,
    sent: Sent,
    entry: Entry,
    events: tuple[m.Event, ...],
    is_accepted: bool,
) -> None:
    """Change an entry; only what is in `turn.changed` is sure to be durable with this turn."""
    key, state = waiting.key, entry.state
    assert key is not None
    is_renewal = isinstance(events[0], m.LeaseRenewed)
    # A lease that had lapsed must not be revived by word of mouth: after a crash the store
    # would say that it lapsed, and give it to another.
    # And the first renewal after a start tells that the holder is not gone, see `Uptime`.
    if is_renewal and state.is_live(turn.now) and entry.is_heard:
        entry.state = apply(state, events, turn.now)
        if key not in turn.changed:
            keeper.renewed(entry)
        return
    if key not in turn.changed:
        is_new = entry.seq == 0
        turn.changed[key] = (entry, None if is_new else state, entry.seq)
        if not entry.unwritten:
            entry.was_heard = entry.is_heard
        entry.unwritten += 1
        if is_new:
            keeper.add(key, entry)
            turn.write_set.known_ids.append((key.subjob, entry.id))
    entry.state = apply(state, events, turn.now)
    if entry.state.deadline_at != state.deadline_at:
        entry.is_heard = True
    if is_renewal:
        return
    digest = None
    if is_accepted:
        digest = sent.digest
        if isinstance(sent.command, m.Enroll):
            assert isinstance(events[0], (m.SubmissionEnrolled, m.SubmissionSeen))
            # The state does not tell which of several requests has made which epoch.
            digest += events[0].epoch.to_bytes(8, "big")
        requests = keeper.requests_of(entry, sent.request_id)
        requests[sent.request_id] = digest
        turn.remembered.append(requests)
        if entry.marks is not None:
            entry.marks = marks_with(entry.marks, sent.request_id)
    for event in events:
        entry.seq += 1
        turn.write_set.history.append(
            HistoryRow(
                entry.id,
                entry.seq,
                turn.now,
                EVENT_NAMES[type(event)],
                getattr(event, "fence", None),
                waiting.actor,
                sent.request_id,
                digest,
                sent.client_at,
                waiting.via,
                data_of(event),
            )
        )
        digest = None
        turn.write_set.known_ids.extend((id_text, entry.id) for id_text in ids_in(event))


def _put_workflow(turn: Turn, keeper: Keeper, waiting: Waiting, put: PutWorkflow) -> None:
    before = keeper.book.get(put.name)
    decision = _others(keeper, waiting, put.name) or keeper.book.changed(
        put, turn.now, waiting.owner
    )
    if isinstance(decision, WorkflowRow) and decision is not before:
        _note_deed(turn, waiting, Deed(PUT_WORKFLOW, put.name))
        keeper.book.keep(decision)
        turn.write_set.workflows.append(decision)
    turn.answer(waiting, decision, is_late=True)


def _change_windows(turn: Turn, keeper: Keeper, waiting: Waiting, change: WindowChange) -> None:
    uptime = keeper.uptime
    rows = change.rows(uptime.windows, turn.now, waiting.actor)
    if isinstance(rows, m.Rejection):
        turn.answer(waiting, rows, is_late=True)
        return
    if not turn.write_set.maintenance:
        turn.windows_before = uptime.windows
    changed = {row.started_at for row in rows}
    others = (window for window in uptime.windows if window.started_at not in changed)
    uptime.windows = (*others, *rows)
    turn.write_set.maintenance += rows
    _note_deed(turn, waiting, change.deed())
    # Who ends what is not open is told so by what is there afterwards.
    ended = MaintenanceRow(turn.now, turn.now, None, waiting.actor)
    turn.answer(waiting, rows[-1] if rows else ended, is_late=True)


def _put_flag(turn: Turn, keeper: Keeper, waiting: Waiting, put: PutFlag) -> None:
    if not turn.write_set.flags:
        turn.flags_before = keeper.flags
    row = put.row(turn.now, waiting.actor)
    keeper.flags = {**keeper.flags, row.name: row}
    turn.write_set.flags.append(row)
    data = {"flag": put.name, "is_up": put.is_up, "reason": put.reason}
    _note_deed(turn, waiting, Deed(PUT_FLAG, data=data))
    turn.answer(waiting, row, is_late=True)


def _trim(turn: Turn, keeper: Keeper, waiting: Waiting, trim: Trim) -> None:
    trimmed = keeper.trim(turn, trim)
    if trimmed.subjobs:
        data = {"subjobs": trimmed.subjobs, "events": trimmed.events}
        _note_deed(turn, waiting, Deed(TRIM, trim.workflow, data=data))
    turn.answer(waiting, trimmed, is_late=True)


def _note_deed(turn: Turn, waiting: Waiting, deed: Deed) -> DeedRow:
    row = deed.row(turn.now, waiting.actor, waiting.via)
    turn.write_set.deeds.append(row)
    return row


def _others(keeper: Keeper, waiting: Waiting, workflow: str) -> m.Rejection | None:
    """Refuse what is another's for whose scope is their own."""
    if not waiting.is_own_only:
        return None
    row = keeper.book.get(workflow)
    if row is None or row.made_by == waiting.owner:
        return None
    return m.Rejection(
        "forbidden", f"workflow {workflow} belongs to somebody else; choose another name"
    )


def _new_workflow(turn: Turn, keeper: Keeper, waiting: Waiting) -> WorkflowRow:
    assert waiting.key is not None
    row = keeper.book.new(waiting.key.workflow, turn.now, waiting.owner)
    keeper.book.keep(row)
    turn.write_set.workflows.append(row)
    return row


def _new_entry(keeper: Keeper, workflow: WorkflowRow) -> Entry:
    entry = Entry(keeper.new_subjob_id(), workflow.id, SubjobState(), 0, 0)
    entry.requests = {}
    return entry
