"""What a lease allows: every write under a fence, decided (rules 6 and 7 of `acquire`)."""

from __future__ import annotations

from htlease.rules import messages as m
from htlease.rules.attempt import AttemptId, Evidence
from htlease.rules.plan import Plan, is_done, is_wall_time, phases_left
from htlease.rules.profiles import flow_of
from htlease.rules.replies import renewal_of, short_of
from htlease.rules.state import CLOSED, GRANTS_KEPT, HELD, REFUSALS_KEPT, Status, SubjobState, apply


def renew(state: SubjobState, command: m.Renew, now: float) -> m.Decision:
    """Move the deadline, save details, pass on what the holder has to do."""
    refused = _not_the_holder(state, command, "renew")
    if refused:
        return refused
    if state.status in CLOSED:
        return m.Accepted((), renewal_of(state, now))
    if state.status not in HELD:
        return _given_up(state, command, "renew")
    assert state.holder is not None
    deadline_at = state.deadline_at
    if state.status is Status.ACTIVE:
        deadline_at = now + state.holder.ttl_seconds
    events: tuple[m.Event, ...] = ()
    if command.details is not None:
        phase = state.current_phase if state.current_fence == state.fence else None
        events = (m.DetailsSaved(state.fence, phase, command.details, deadline_at),)
    elif state.status is Status.ACTIVE:
        events = (m.LeaseRenewed(state.fence, deadline_at),)
    return m.Accepted(events, renewal_of(apply(state, events, now), now))


def enter(state: SubjobState, command: m.Enter, now: float) -> m.Decision:
    """Record the intent to run a phase, if it is its turn."""
    refused = _may_not_work(state, command, "enter", command.phase)
    if refused:
        return refused
    assert state.plan is not None
    flow = flow_of(state.plan)
    is_entered = state.current_fence == state.fence and state.current_phase == command.phase
    record = state.phases.get(command.phase)
    is_over = record is None or record.failed_fence == state.fence
    is_complete = record is not None and record.completed_fence == state.fence
    if record and is_entered and not is_over and (flow or not is_complete):
        return m.Accepted((), record)
    problem = _out_of_order(state, command.phase)
    if problem:
        return m.Rejection("phase-order", problem, field="phase")
    events: tuple[m.Event, ...] = (m.PhaseEntered(state.fence, command.phase, command.is_underway),)
    if flow and command.phase in flow.terminal:
        outcome = flow.terminal[command.phase]
        events += (m.SubjobClosed(outcome, "state", state.fence, command.phase),)
    return m.Accepted(events, apply(state, events, now).phases[command.phase])


def _out_of_order(state: SubjobState, phase: str) -> str | None:
    """Say why a phase may not be entered now, or None."""
    assert state.plan is not None
    flow = flow_of(state.plan)
    if flow:
        is_first = state.current_fence != state.fence
        allowed = flow.allows(state.current_phase, phase) or (
            is_first and (phase in state.phases or flow.allows(None, phase))
        )
        at = state.current_phase or flow.initial
        return None if allowed else f"{phase} does not follow {at} in {state.plan.profile}"
    spec = state.plan.phase(phase)
    assert spec is not None
    if is_done(spec, state.phases.get(phase), state.fence):
        return f"{phase} is complete and does not run again under this lease"
    for left in phases_left(state.plan, state.phases, state.fence):
        if left == phase:
            return None
        return f"{left} comes first; complete it before {phase} is entered"
    return f"{phase} has nothing left to do"


def complete(state: SubjobState, command: m.Complete, now: float) -> m.Decision:
    """Record a finished phase; a last phase that is `once` closes the subjob."""
    record = state.phases.get(command.phase)
    if record and record.completed_fence == command.fence:  # repeated, perhaps after the close
        refused = _not_the_holder(state, command, "complete")
        return refused or m.Accepted((), record)
    refused = _may_not_work(state, command, "complete", command.phase)
    if refused:
        return refused
    assert state.plan is not None
    if record is None or record.entered_fence != state.fence:
        return m.Rejection(
            "phase-order", f"{command.phase} was not entered under this lease", field="phase"
        )
    events: tuple[m.Event, ...] = (m.PhaseCompleted(state.fence, command.phase, command.artifacts),)
    last = state.plan.phases[-1]
    if state.plan.profile is None and last.name == command.phase and last.restart == "once":
        events += (m.SubjobClosed("complete", "last-phase", state.fence),)
    return m.Accepted(events, apply(state, events, now).phases[command.phase])


def fail(state: SubjobState, command: m.Fail, now: float) -> m.Decision:
    """Record that this attempt could not do a phase."""
    refused = _may_not_work(state, command, "fail", command.phase)
    if refused:
        return refused
    record = state.phases.get(command.phase)
    if record and record.failed_fence == state.fence:
        return m.Accepted((), record)
    events = (m.PhaseFailed(state.fence, command.phase, command.reason, command.exit_code),)
    return m.Accepted(events, apply(state, events, now).phases[command.phase])


def exited(state: SubjobState, command: m.Exited, now: float) -> m.Decision:
    """Record the payload's end; the lease ends with it."""
    refused = _not_the_holder(state, command, "exited")
    if refused:
        return refused
    if state.exited_fence == state.fence:
        return m.Accepted((), short_of(state))
    if state.status not in HELD and state.status not in CLOSED:
        return _given_up(state, command, "exited")
    return _attempt_over(state, command, now)


def _attempt_over(state: SubjobState, command: m.Exited | m.Ended, now: float) -> m.Accepted:
    """Record an end; where a limit on run time brought it about, the plan may call that final."""
    events: tuple[m.Event, ...] = (
        m.AttemptExited(state.fence, command.exit_code, command.exit_signal, command.reason),
    )
    fails = state.plan is not None and state.plan.on_wall_time == "fail"
    if fails and is_wall_time(command.reason) and state.status not in CLOSED:
        events += (m.SubjobClosed("failed", "walltime", state.fence, command.reason),)
    if isinstance(command, m.Exited) and _is_all_done(state, command):
        events += (m.SubjobClosed("complete", "all-back", state.fence),)
    return m.Accepted(events, short_of(apply(state, events, now)))


def _is_all_done(state: SubjobState, command: m.Exited) -> bool:
    """Tell whether a payload's end is the subjob's: nothing is left to run or to bring back."""
    plan = state.plan or Plan.single()
    return (
        command.is_all_back is True
        and command.exit_code == 0
        and state.status not in CLOSED
        and plan.profile is None
        and not _missing(state, plan)
    )


def _missing(state: SubjobState, plan: Plan) -> list[str]:
    return [
        spec.name
        for spec in plan.phases
        if spec.name not in state.phases or state.phases[spec.name].completed_fence is None
    ]


def abandon(state: SubjobState, command: m.Abandon, now: float) -> m.Decision:
    """Give the lease up unfinished."""
    refused = _not_the_holder(state, command, "abandon")
    if refused:
        return refused
    if state.status not in HELD:
        return m.Accepted((), short_of(state))
    events = (m.LeaseAbandoned(state.fence, command.reason),)
    return m.Accepted(events, short_of(apply(state, events, now)))


def ended(state: SubjobState, command: m.Ended, now: float) -> m.Decision:
    """Record the end of a job's attempt that the access point has seen; others are untouched.

    Fenced by nothing, since the holder is gone: the report has to name the very start. A holder
    that gave its lease up knew a signal; that a limit on run time had sent it, only the access
    point knows.
    """
    holder = state.holder
    is_explanation = (
        state.status is Status.ABANDONED
        and state.exited_fence != state.fence
        and is_wall_time(command.reason)
    )
    if (
        holder is None
        or holder.kind != "job"
        or not (state.status in HELD or is_explanation)
        or AttemptId.parse(holder.attempt_id).global_job_id != command.global_job_id
        or not _names(command, holder.evidence)
    ):
        return m.Accepted((), short_of(state))
    return _attempt_over(state, command, now)


def observed(state: SubjobState, command: m.Observed, now: float) -> m.Decision:
    """Record what was done to a job; what is known, or is of an earlier submission, adds nothing.

    Fenced by nothing, since it decides nothing.
    """
    event: m.JobHeld | m.JobReleased | m.JobRemoved | m.JobEnded
    job, by, reason = command.global_job_id, command.by, command.reason
    hold = state.job_hold
    if command.what == "held":
        event = m.JobHeld(job, by, reason, command.code, command.subcode)
        is_news = event != hold and state.submissions.get(job, state.epoch) == state.epoch
    elif command.what == "released":
        event = m.JobReleased(job, by, reason)
        is_news = hold is not None and hold.global_job_id == job
    elif command.what == "ended":
        event = m.JobEnded(job, by, reason)
        is_news = job != state.ended_job and state.status in HELD
    else:
        event = m.JobRemoved(job, by, reason)
        is_news = job not in state.removed_jobs
    events: tuple[m.Event, ...] = (event,) if is_news else ()
    return m.Accepted(events, short_of(apply(state, events, now)))


def _names(command: m.Ended, evidence: Evidence) -> bool:
    start = (evidence.job_starts, evidence.shadow_starts)
    return start != (None, None) and start == (command.job_starts, command.shadow_starts)


def commit(state: SubjobState, command: m.Commit, now: float) -> m.Decision:
    """Close as complete: the outputs came back."""
    refused = _not_the_holder(state, command, "commit")
    if refused:
        return refused
    if state.status is Status.COMPLETE:
        return m.Accepted((), short_of(state))
    if _has_given_up(state):
        return _given_up(state, command, "commit")
    plan = state.plan or Plan.single()
    missing = _missing(state, plan)
    if plan.profile is None and missing and state.status not in CLOSED:
        return m.Rejection("phase-order", f"not complete: {', '.join(missing)}", field="phase")
    return _close(state, "complete", "committed", command.reason, now)


def settle(state: SubjobState, command: m.Settle, now: float) -> m.Decision:
    """Close with an outcome found on the access point."""
    refused = _not_the_holder(state, command, "settle")
    if refused:
        return refused
    if _has_given_up(state):
        return _given_up(state, command, "settle")
    return _close(state, command.outcome, "settled", command.reason, now)


def cancel(state: SubjobState, command: m.Cancel, now: float) -> m.Decision:
    """Close as cancelled, whoever holds the lease."""
    return _close(state, "cancelled", "cancelled", command.reason, now)


def _close(state: SubjobState, outcome: str, by: str, reason: str | None, now: float) -> m.Decision:
    if state.status in CLOSED:
        if state.outcome == outcome:
            return m.Accepted((), short_of(state))
        return m.Rejection(
            "subjob-closed", f"the subjob is {state.outcome} already", outcome=state.outcome
        )
    events = (m.SubjobClosed(outcome, by, state.fence, reason),)
    return m.Accepted(events, short_of(apply(state, events, now)))


def _not_the_holder(state: SubjobState, command: m.FencedCommand, call: str) -> m.Rejection | None:
    """Apply rule 6: refuse a pair that is not the one granted last."""
    pair = (command.fence, m.nonce_digest(command.nonce))
    if state.holder and pair == (state.holder.fence, state.holder.nonce_digest):
        return None
    was_forgotten = len(state.grants) == GRANTS_KEPT and command.fence < state.grants[0][0]
    if pair in state.grants or was_forgotten:
        assert state.holder is not None
        return _write_refused(
            state,
            command,
            call,
            "superseded-attempt",
            f"fence {command.fence} ended; {state.holder.attempt_id} has fence {state.fence}",
        )
    return _write_refused(
        state,
        command,
        call,
        "stale-fence",
        f"this nonce was never granted fence {command.fence}",
    )


def _has_given_up(state: SubjobState) -> bool:
    """Tell whether who was granted the lease last has let go of it, other than by its end."""
    has_ended = state.status is Status.EXITED and state.exited_fence == state.fence
    return not has_ended and state.status not in HELD and state.status not in CLOSED


def _given_up(state: SubjobState, command: m.FencedCommand, call: str) -> m.Rejection:
    return _write_refused(
        state,
        command,
        call,
        "superseded-attempt",
        f"the lease of fence {command.fence} was given up ({state.status.value})",
    )


def _write_refused(
    state: SubjobState, command: m.FencedCommand, call: str, code: str, detail: str
) -> m.Rejection:
    key = (code, str(command.fence))
    is_noted = key in state.refusals or len(state.refusals) >= REFUSALS_KEPT
    note = m.WriteRefused(code, command.fence, call)
    return m.Rejection(code, detail, events=() if is_noted else (note,))


def _may_not_work(
    state: SubjobState, command: m.FencedCommand, call: str, phase: str
) -> m.Rejection | None:
    """Refuse work on a phase unless the caller holds the lease and the plan has the phase."""
    refused = _not_the_holder(state, command, call)
    if refused:
        return refused
    if state.status in CLOSED:
        return m.Rejection("subjob-closed", f"the subjob is {state.outcome}", outcome=state.outcome)
    if state.status not in HELD:
        return _given_up(state, command, call)
    assert state.plan is not None
    if state.plan.phase(phase) is None:
        names = ", ".join(spec.name for spec in state.plan.phases)
        return m.Rejection("phase-order", f"the plan has no {phase}; it has {names}", field="phase")
    return None
