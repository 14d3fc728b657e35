"""The lease rules: what a command does to a subjob, decided without clock, socket or store.

    decide(state, command, now) -> Accepted(events, reply) | Rejection

One subjob has at most one holder. Each change of holder raises the fence by one, and every write
names fence and nonce, so that whoever held the lease before is shut out by arithmetic:

1.  Replay      the same nonce on a live lease gets the same grant again, deadline moved; it may
                bring another plan until it has entered a phase.
2.  Free        nobody holds the lease and the caller is not older: granted, fence + 1.
3.  Newer       on a live lease: granted at once only with proof that the older attempt is over
                (it gave the lease up, the access point proved its end, see `end_proof`, or the
                caller runs in its very slot); else the holder is recalled: it may finish by
                its deadline but not renew, and the caller waits.
4.  Older       refused for ever.
5.  Same, unclear   with another nonce: waits for the end of the lease, recalls nobody.
6.  Writes      under a pair that once was the holder's: superseded; that never was: stale.
                Neither changes anything.
7.  Closed      complete, failed, cancelled absorb what comes late. A new submission re-opens
                what failed, and the others only when forced.
8.  Clock       only the server's, and only when somebody asks. A lease that lapsed and that
                nobody took is revived by its holder's renewal; after downtime, see
                `state.after_downtime`.

The remaining rules live where they act: the client's deadline (9) in `lease_client`, roll-ups (10)
in `rollup`. Scripts and operators (11) are holders like jobs, of another kind; evidence of
different kinds does not compare.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from htlease.rules import fenced_writes
from htlease.rules import messages as m
from htlease.rules.attempt import AttemptId, Order
from htlease.rules.plan import Plan, phases_left
from htlease.rules.replies import grant_of, renewal_of, short_of
from htlease.rules.state import CLOSED, HELD, REFUSALS_KEPT, Status, SubjobState, apply, evolve

#: How long a refused attempt should wait before it asks again, as parts of the holder's ttl:
#: when the holder was recalled it hears of it at its next renewal, which comes within a quarter.
_RETRY_PART = 1 / 8
RETRY_MIN_SECONDS = 0.5


def decide(state: SubjobState, command: m.Command, now: float) -> m.Decision:
    """Apply the lease rules to one command."""
    decision: m.Decision = _DECIDERS[type(command)](state, command, now)
    return decision


def replayed_reply(state: SubjobState, command: m.Command, now: float) -> m.Decision:
    """Answer a request that was accepted before and came again; nothing changes any more."""
    if isinstance(command, (m.Acquire, m.Renew)):  # the answer is a promise of time
        holder = state.holder
        if holder is None or holder.nonce_digest != m.nonce_digest(command.nonce):
            return m.Rejection("superseded-attempt", "the lease of this request has ended since")
        is_acquire = isinstance(command, m.Acquire)
        return m.Accepted((), grant_of(state, now) if is_acquire else renewal_of(state, now))
    if isinstance(command, m.Enroll):
        epoch = state.submissions.get(command.global_job_id or "", state.epoch)
        return m.Accepted((), m.Enrolled(epoch))
    if isinstance(command, (m.Enter, m.Complete, m.Fail)):
        return m.Accepted((), state.phases.get(command.phase) or m.PhaseRecord(command.phase))
    return m.Accepted((), short_of(state))


# ------------------------------------------------------------ who may hold the lease


def _acquire(state: SubjobState, command: m.Acquire, now: float) -> m.Decision:
    digest = m.nonce_digest(command.nonce)
    attempt_id = str(AttemptId.of(command.global_job_id or command.kind, command.evidence))

    def refuse(code: str, why: str, *events: m.Event, **details: Any) -> m.Rejection:
        return m.Rejection(
            code, why, events=(*events, *_noted(state, command, attempt_id, code, why)), **details
        )

    if state.holder and state.holder.nonce_digest == digest and state.status in HELD:
        if state.status is Status.ACTIVE or state.is_live(now):  # rules 1 and 8
            return _granted_again(state, command, now)
    if any(digest == past for _, past in state.grants):
        return refuse(
            "superseded-attempt", "the lease under this nonce has ended; it is not reused"
        )

    epoch, seen = _epoch_of(state, command.global_job_id)
    if state.status in CLOSED:  # rule 7
        is_wish = epoch > state.epoch and command.reopens is not False
        if state.status is not Status.FAILED or not is_wish:
            return refuse("subjob-closed", f"the subjob is {state.outcome}", outcome=state.outcome)
        seen = (m.SubmissionEnrolled(epoch, command.global_job_id, reopened=state.outcome),)
    order = _order(state, command, epoch, is_first_sight=bool(seen))
    if order is Order.OLDER:  # rule 4
        newer = state.holder.attempt_id if state.holder else "a later submission"
        return refuse("superseded-attempt", f"a later attempt has started: {newer}", *seen)
    plan = command.plan or state.plan or Plan.single()
    if plan.profile is None and not phases_left(plan, state.phases) and not state.is_live(now):
        closed = m.SubjobClosed("complete", "nothing-left", state.fence)
        return refuse("subjob-closed", "every phase is complete", *seen, closed, outcome="complete")
    if not state.is_live(now):  # rule 2
        return _granted(state, command, now, epoch, seen, _why_free(state))
    assert state.holder is not None
    if order is Order.NEWER:  # rule 3
        if _same_slot_proof(state, command, epoch):
            return _granted(state, command, now, epoch, seen, "same-slot")
        if state.plan is not None and state.plan.takeover == "immediate":
            return _granted(state, command, now, epoch, seen, "immediate")
        recalled = () if state.recalled_by else (m.LeaseRecalled(state.fence, attempt_id),)
        why = f"the lease of {state.holder.attempt_id} is still live; it has been recalled"
    else:  # rule 5
        recalled = ()
        why = f"the lease of {state.holder.attempt_id} is still live"
    remaining_seconds = state.deadline_at - now
    poll_seconds = max(RETRY_MIN_SECONDS, state.holder.ttl_seconds * _RETRY_PART)
    return refuse(
        "lease-still-live",
        why,
        *seen,
        *recalled,
        retry_after_seconds=min(remaining_seconds, poll_seconds),
    )


def _epoch_of(
    state: SubjobState, global_job_id: str | None
) -> tuple[int, tuple[m.SubmissionEnrolled | m.SubmissionSeen, ...]]:
    """Return the submission's epoch and, at first sight of it, the event that issues it."""
    if global_job_id is None:
        return max(state.epoch, 1), ()
    known = state.submissions.get(global_job_id)
    if known is not None:
        return known, ()
    if state.awaiting_epoch is not None:
        epoch = state.awaiting_epoch
        return epoch, (m.SubmissionSeen(epoch, global_job_id),)
    return state.epoch + 1, (m.SubmissionEnrolled(state.epoch + 1, global_job_id),)


def _order(state: SubjobState, command: m.Acquire, epoch: int, is_first_sight: bool) -> Order:
    """Return how the caller stands to the attempt that was last granted the lease.

    Whom nobody has announced and who brings no evidence is no later attempt: no evidence never
    outranks some.
    """
    if is_first_sight and state.granted_epoch and not command.evidence.has_counters:
        return Order.UNCLEAR
    if epoch != state.granted_epoch:
        return Order.NEWER if epoch > state.granted_epoch else Order.OLDER
    before = state.last_evidence.get(command.kind)
    return Order.UNCLEAR if before is None else command.evidence.compared_to(before)


def _same_slot_proof(state: SubjobState, command: m.Acquire, epoch: int) -> bool:
    """Tell whether the caller's starter runs where the holder's starter did, hence after it.

    Another process in the same sandbox proves nothing, so the counters alone must say that this
    is a later start.
    """
    holder = state.holder
    if holder is None or not (command.kind == holder.kind == "job"):
        return False
    later_start = (
        epoch > state.granted_epoch
        or command.evidence.counters_compared_to(holder.evidence) is Order.NEWER
    )
    return later_start and command.place.is_same_slot_as(holder.place)


def _granted_again(state: SubjobState, command: m.Acquire, now: float) -> m.Accepted:
    """Answer the holder that asks again, which may bring its plan as long as it did no work.

    A hook acquires before the wrapper, which knows the plan and how long its lease is to last, is
    there.
    """
    assert state.holder is not None
    is_recalled = state.status is Status.RECALLED
    may_change = command.plan is not None and state.current_fence != state.fence
    ttl_seconds = command.ttl_seconds if may_change else state.holder.ttl_seconds
    deadline_at = state.deadline_at if is_recalled else now + ttl_seconds
    is_change = (command.plan, ttl_seconds) != (state.plan, state.holder.ttl_seconds)
    events: tuple[m.Event, ...] = ()
    if may_change and is_change:
        assert command.plan is not None
        events = (m.PlanChanged(state.fence, command.plan, deadline_at, ttl_seconds),)
    elif not is_recalled:
        events = (m.LeaseRenewed(state.fence, deadline_at),)
    return m.Accepted(events, grant_of(apply(state, events, now), now))


def _why_free(state: SubjobState) -> str:
    if state.holder is None:
        return "first"
    if state.status in HELD:
        return "expired"
    return state.status.value  # abandoned, exited; or waiting, after a re-opening


def _granted(
    state: SubjobState,
    command: m.Acquire,
    now: float,
    epoch: int,
    seen: tuple[m.Event, ...],
    why: str,
) -> m.Accepted:
    attempt_id = str(AttemptId.of(command.global_job_id or command.kind, command.evidence))
    number = state.attempt_number
    is_known = attempt_id == state.last_job_attempt_id and command.evidence.job_starts is not None
    if command.kind == "job" and not is_known:
        number += 1
    ended_before = None
    if state.status in HELD:
        ended_before = "superseded" if state.is_live(now) else "expired"
    plan = command.plan or (Plan.single() if state.plan is None else None)
    acquired = m.LeaseAcquired(
        fence=state.fence + 1,
        epoch=epoch,
        kind=command.kind,
        attempt_id=attempt_id,
        attempt_number=number,
        evidence=command.evidence,
        place=command.place,
        host=command.host,
        nonce_digest=m.nonce_digest(command.nonce),
        ttl_seconds=command.ttl_seconds,
        deadline_at=now + command.ttl_seconds,
        why=why,
        ended_before=ended_before,
        plan=None if plan == state.plan else plan,
    )
    events = (*seen, acquired)
    return m.Accepted(events, grant_of(apply(state, events, now), now))


def _enroll(state: SubjobState, command: m.Enroll, now: float) -> m.Decision:
    known = state.submissions.get(command.global_job_id or "")
    if known is not None and not command.links:
        return m.Accepted((), m.Enrolled(known))
    if known is None and state.status in CLOSED and state.status is not Status.FAILED:
        if not command.force:
            return m.Rejection(
                "subjob-closed",
                f"the subjob is {state.outcome}; enroll it with force to run it again",
                outcome=state.outcome,
            )
    if known is not None:
        epoch = known
    elif command.global_job_id is not None and state.awaiting_epoch is not None:
        epoch = state.awaiting_epoch
        seen = m.SubmissionSeen(epoch, command.global_job_id)
        if not command.links:
            return m.Accepted((seen,), m.Enrolled(epoch))
        state = evolve(state, seen, now)
    else:
        epoch = state.epoch + 1
    enrolled = m.SubmissionEnrolled(
        epoch,
        command.global_job_id,
        command.retry,
        command.links,
        # A live holder goes on by the plan it has; its successor brings its own.
        plan=None if state.status in HELD else command.plan,
        reopened=state.outcome if known is None else None,
    )
    return m.Accepted((enrolled,), m.Enrolled(epoch))


def _noted(
    state: SubjobState, command: m.Acquire, attempt_id: str, code: str, why: str
) -> tuple[m.AttemptRefused, ...]:
    """Return the record of a refused attempt, unless the same refusal stands there already."""
    digest = m.nonce_digest(command.nonce)
    if (code, digest) in state.refusals or len(state.refusals) >= REFUSALS_KEPT:
        return ()
    return (m.AttemptRefused(code, attempt_id, digest, command.host, why),)


_DECIDERS: dict[type, Callable[[SubjobState, Any, float], m.Decision]] = {
    m.Enroll: _enroll,
    m.Acquire: _acquire,
    m.Renew: fenced_writes.renew,
    m.Enter: fenced_writes.enter,
    m.Complete: fenced_writes.complete,
    m.Fail: fenced_writes.fail,
    m.Exited: fenced_writes.exited,
    m.Abandon: fenced_writes.abandon,
    m.Ended: fenced_writes.ended,
    m.Observed: fenced_writes.observed,
    m.Commit: fenced_writes.commit,
    m.Settle: fenced_writes.settle,
    m.Cancel: fenced_writes.cancel,
}
