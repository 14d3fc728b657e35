"""What a caller is told of a subjob: the replies to accepted commands."""

from __future__ import annotations

from htlease.rules import messages as m
from htlease.rules.plan import phases_left
from htlease.rules.state import CLOSED, Status, SubjobState


def grant_of(state: SubjobState, now: float) -> m.Grant:
    """Return the grant as its holder should see it now."""
    holder, plan = state.holder, state.plan
    assert holder is not None and plan is not None
    left = phases_left(plan, state.phases, state.fence) if plan.profile is None else ()
    phases = []
    for spec in plan.phases:
        record = state.phases.get(spec.name)
        phases.append(
            m.PhaseToRun(
                spec.name,
                spec.restart,
                spec.exclusive,
                spec.needs,
                spec.name in left,
                record is not None and record.completed_fence is not None,
                record.entries if record else 0,
            )
        )
    return m.Grant(
        fence=state.fence,
        epoch=state.granted_epoch,
        attempt_id=holder.attempt_id,
        attempt_number=state.attempt_number,
        expires_in_seconds=max(0.0, state.deadline_at - now),
        phase=left[0] if left else (state.current_phase if plan.profile else None),
        phases=tuple(phases),
        reclaimed=state.fence > 1,
        details=state.details,
        details_phase=state.details_phase,
    )


def renewal_of(state: SubjobState, now: float) -> m.Renewal:
    """Return what the last holder is to do and how long its lease lasts."""
    if state.status in CLOSED:
        order = "cancel" if state.status is Status.CANCELLED else "stop"
        return m.Renewal(0.0, order, state.outcome)
    order = "continue" if state.status is Status.ACTIVE else "stop"
    return m.Renewal(max(0.0, state.deadline_at - now), order)


def short_of(state: SubjobState) -> m.SubjobReply:
    """Return where the subjob stands."""
    return m.SubjobReply(state.status.value, state.fence, state.outcome)
