"""The state of one subjob and how events change it.

`evolve` is a left fold: the state is what the history says, and folding the history again gives
the same state, apart from deadlines, whose renewals are not kept. Which status follows which is
the table `TRANSITIONS`; the state diagram in the manual is drawn from it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from htlease.rules import messages as m
from htlease.rules.attempt import Evidence, Place
from htlease.rules.plan import Plan

#: Past grants and refusals that a state remembers. A pair whose fence is older than the oldest
#: kept one is taken for superseded: its fence was issued, or the counter would not be past it.
GRANTS_KEPT = 100
REFUSALS_KEPT = 100
REMOVALS_KEPT = 20
#: Accepted requests that are recognised when they come again.
REQUESTS_KEPT = 64


class Status(enum.Enum):
    """Where a subjob stands; `LAPSED` is never stored, it is an active lease past its deadline."""

    WAITING = "waiting"
    ACTIVE = "active"
    RECALLED = "recalled"
    LAPSED = "lapsed"
    EXITED = "exited"
    ABANDONED = "abandoned"
    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = (Status.WAITING, Status.ACTIVE, Status.RECALLED, Status.EXITED, Status.ABANDONED)
HELD = (Status.ACTIVE, Status.RECALLED)
CLOSED = (Status.COMPLETE, Status.FAILED, Status.CANCELLED)

_STAYS = (
    m.AttemptRefused,
    m.WriteRefused,
    m.SubmissionSeen,
    m.JobHeld,
    m.JobReleased,
    m.JobRemoved,
    m.JobEnded,
)
_WORK = (m.PhaseEntered, m.PhaseCompleted, m.PhaseFailed, m.DetailsSaved, m.LeaseRenewed)

#: (status, event) -> status. `SubjobClosed` leads to its outcome, so it has a row for each one.
TRANSITIONS: Mapping[tuple[Status, type[m.Event]], tuple[Status, ...]] = {
    **{(status, event): (status,) for status in OPEN + CLOSED for event in _STAYS},
    **{(status, m.SubmissionEnrolled): (status,) for status in OPEN},
    # Only what names the outcome it re-opens; links of a known submission just add to it.
    **{(status, m.SubmissionEnrolled): (Status.WAITING, status) for status in CLOSED},
    **{(status, m.LeaseAcquired): (Status.ACTIVE,) for status in OPEN},
    **{(status, event): (status,) for status in HELD for event in _WORK},
    **{(status, m.PlanChanged): (status,) for status in HELD},
    (Status.ACTIVE, m.LeaseRecalled): (Status.RECALLED,),
    **{(status, m.AttemptExited): (Status.EXITED,) for status in HELD},
    # The access point says what ended a holder that gave its lease up.
    (Status.ABANDONED, m.AttemptExited): (Status.ABANDONED,),
    # The payload of a subjob that its last phase has closed ends a moment later.
    **{(status, m.AttemptExited): (status,) for status in CLOSED},
    # A script that is done leaves what it found: a job to come, or one that has ended.
    **{
        (status, m.LeaseAbandoned): (Status.ABANDONED, Status.WAITING, Status.EXITED)
        for status in HELD
    },
    **{(status, m.SubjobClosed): CLOSED for status in OPEN},
}


@dataclass(frozen=True)
class Holder:
    """Who was granted the lease last."""

    fence: int
    kind: str
    attempt_id: str
    evidence: Evidence
    place: Place
    host: str | None
    nonce_digest: str
    ttl_seconds: float


@dataclass(frozen=True)
class SubjobState:
    """Everything the lease rules look at."""

    status: Status = Status.WAITING
    plan: Plan | None = None
    #: The highest epoch issued, and the one that was last granted a lease.
    epoch: int = 0
    granted_epoch: int = 0
    #: An enrolled epoch whose submission has not been seen yet.
    awaiting_epoch: int | None = None
    #: GlobalJobId -> epoch.
    submissions: Mapping[str, int] = field(default_factory=dict)
    #: The last fence issued; 0 before the first grant.
    fence: int = 0
    holder: Holder | None = None
    #: Server clock; meaningful while the status is active or recalled.
    deadline_at: float = 0.0
    recalled_by: str | None = None
    #: Kind -> evidence of the attempt last granted in `granted_epoch`.
    last_evidence: Mapping[str, Evidence] = field(default_factory=dict)
    #: (fence, nonce digest) of the last grants, oldest first.
    grants: tuple[tuple[int, str], ...] = ()
    attempt_number: int = 0
    last_job_attempt_id: str | None = None
    phases: Mapping[str, m.PhaseRecord] = field(default_factory=dict)
    #: The phase entered last and the fence under which it was.
    current_phase: str | None = None
    current_fence: int = 0
    details: str | None = None
    details_phase: str | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    #: Fence of the attempt whose exit is recorded above.
    exited_fence: int = 0
    #: (code, whom) of the refusals already recorded.
    refusals: tuple[tuple[str, str], ...] = ()
    #: The hold under which the newest submission stands, as far as anybody reported it.
    job_hold: m.JobHeld | None = None
    #: The jobs whose removal is recorded, oldest first.
    removed_jobs: tuple[str, ...] = ()
    #: The job of which it was remarked last that its processes may have outlived it.
    ended_job: str | None = None

    @property
    def outcome(self) -> str | None:
        """How the subjob was closed, or None while it is open."""
        return self.status.value if self.status in CLOSED else None

    def is_live(self, now: float) -> bool:
        """Tell whether somebody holds the lease and its deadline lies ahead."""
        return self.status in HELD and now < self.deadline_at

    def status_at(self, now: float) -> Status:
        """Return the status as a person should see it at an instant."""
        if self.status in HELD and not self.is_live(now):
            return Status.LAPSED
        return self.status


_Value = TypeVar("_Value", SubjobState, Holder, m.PhaseRecord)


def replace(value: _Value, **changes: object) -> _Value:
    """Do as `dataclasses.replace` at a tenth of its cost, which was half the cost of a command.

    Copies the fields instead of calling `__init__`; neither class checks anything there.
    """
    copy = object.__new__(type(value))
    copy.__dict__.update(value.__dict__, **changes)
    if len(copy.__dict__) != len(value.__dict__):
        raise TypeError(f"{type(value).__name__} has not all of the fields {sorted(changes)}")
    return copy


def evolve(state: SubjobState, event: m.Event, now: float) -> SubjobState:
    """Return the state after an event; `now` is when the event was recorded."""
    targets = TRANSITIONS.get((state.status, type(event)))
    if targets is None:
        raise AssertionError(f"no way from {state.status.value} by {type(event).__name__}")
    if isinstance(event, m.LeaseRenewed):  # first: by far the most frequent
        return replace(state, deadline_at=event.deadline_at)
    if isinstance(event, m.LeaseAcquired):
        return _acquired(state, event)
    if isinstance(event, (m.PhaseEntered, m.PhaseCompleted, m.PhaseFailed)):
        return _phase_changed(state, event, now)
    if isinstance(event, m.DetailsSaved):
        return _details_saved(state, event)
    if isinstance(event, (m.SubmissionEnrolled, m.SubmissionSeen)):
        return _submission(state, event)
    if isinstance(event, m.PlanChanged):
        return _plan_changed(state, event)
    if isinstance(event, m.LeaseRecalled):
        return replace(state, status=targets[0], recalled_by=event.by_attempt_id)
    if isinstance(event, m.AttemptExited):
        return replace(
            state,
            status=targets[0],
            exit_code=event.exit_code,
            exit_signal=event.exit_signal,
            exited_fence=event.fence,
        )
    if isinstance(event, m.LeaseAbandoned):
        return replace(state, status=_abandoned(state))
    if isinstance(event, m.SubjobClosed):
        return replace(state, status=Status(event.outcome), recalled_by=None)
    if isinstance(event, (m.JobHeld, m.JobReleased, m.JobRemoved, m.JobEnded)):
        return _observed(state, event)
    whom = event.nonce_digest if isinstance(event, m.AttemptRefused) else str(event.fence)
    return replace(state, refusals=(*state.refusals, (event.code, whom)))


#: What `apply` was asked last and what it said: deciding folds its events to find the reply, and
#: whoever keeps the state folds the very same ones a moment later.
_applied: tuple[object, object, float, SubjobState | None] = (None, None, 0.0, None)


def apply(state: SubjobState, events: tuple[m.Event, ...], now: float) -> SubjobState:
    """Fold events into a state."""
    global _applied
    before, same_events, at, known = _applied
    if known is not None and before is state and same_events is events and at == now:
        return known
    after = state
    for event in events:
        after = evolve(after, event, now)
    _applied = (state, events, now, after)
    return after


def _acquired(state: SubjobState, event: m.LeaseAcquired) -> SubjobState:
    same_epoch = event.epoch == state.granted_epoch
    evidence = dict(state.last_evidence) if same_epoch else {}
    evidence[event.kind] = event.evidence
    is_job = event.kind == "job"
    return replace(
        state,
        status=Status.ACTIVE,
        plan=event.plan or state.plan,
        epoch=max(state.epoch, event.epoch),
        granted_epoch=event.epoch,
        fence=event.fence,
        holder=Holder(
            event.fence,
            event.kind,
            event.attempt_id,
            event.evidence,
            event.place,
            event.host,
            event.nonce_digest,
            event.ttl_seconds,
        ),
        deadline_at=event.deadline_at,
        recalled_by=None,
        last_evidence=evidence,
        grants=(*state.grants, (event.fence, event.nonce_digest))[-GRANTS_KEPT:],
        attempt_number=event.attempt_number,
        last_job_attempt_id=event.attempt_id if is_job else state.last_job_attempt_id,
        # It was released by somebody, or it would not have started.
        job_hold=None if is_job else state.job_hold,
    )


def _abandoned(state: SubjobState) -> Status:
    """Return where a subjob stands whose holder has given the lease up."""
    assert state.holder is not None
    if state.holder.kind == "job":
        return Status.ABANDONED
    if state.holder.kind == "pre" or not state.attempt_number:
        return Status.WAITING
    return Status.EXITED if state.exited_fence else Status.ABANDONED


def _plan_changed(state: SubjobState, event: m.PlanChanged) -> SubjobState:
    holder = state.holder
    if holder is not None and event.ttl_seconds is not None:
        holder = replace(holder, ttl_seconds=event.ttl_seconds)
    return replace(state, plan=event.plan, holder=holder, deadline_at=event.deadline_at)


def _observed(
    state: SubjobState, event: m.JobHeld | m.JobReleased | m.JobRemoved | m.JobEnded
) -> SubjobState:
    if isinstance(event, m.JobHeld):
        return replace(state, job_hold=event)
    hold = state.job_hold
    if hold is not None and hold.global_job_id == event.global_job_id:
        state = replace(state, job_hold=None)
    if isinstance(event, m.JobReleased):
        return state
    if isinstance(event, m.JobEnded):
        return replace(state, ended_job=event.global_job_id)
    removed = (*state.removed_jobs, event.global_job_id)[-REMOVALS_KEPT:]
    return replace(state, removed_jobs=removed)


def _phase_changed(
    state: SubjobState, event: m.PhaseEntered | m.PhaseCompleted | m.PhaseFailed, now: float
) -> SubjobState:
    record = state.phases.get(event.phase) or m.PhaseRecord(event.phase)
    if isinstance(event, m.PhaseEntered):
        record = replace(
            record,
            entries=record.entries + 1,
            entered_fence=event.fence,
            entered_at=now,
            failed_fence=None,
            failed_at=None,
            reason=None,
            exit_code=None,
        )
        state = replace(state, current_phase=event.phase, current_fence=event.fence)
    elif isinstance(event, m.PhaseCompleted):
        record = replace(
            record,
            completed_fence=event.fence,
            completed_at=now,
            artifacts=event.artifacts,
        )
    else:
        record = replace(
            record,
            failed_fence=event.fence,
            failed_at=now,
            reason=event.reason,
            exit_code=event.exit_code,
        )
    return replace(state, phases={**state.phases, event.phase: record})


def _details_saved(state: SubjobState, event: m.DetailsSaved) -> SubjobState:
    phases = state.phases
    if event.phase is not None:
        record = phases.get(event.phase) or m.PhaseRecord(event.phase)
        phases = {**phases, event.phase: replace(record, details=event.details)}
    return replace(
        state,
        phases=phases,
        details=event.details,
        details_phase=event.phase,
        deadline_at=event.deadline_at,
    )


def _submission(state: SubjobState, event: m.SubmissionEnrolled | m.SubmissionSeen) -> SubjobState:
    submissions = state.submissions
    if event.global_job_id is not None:
        submissions = {**submissions, event.global_job_id: event.epoch}
    if isinstance(event, m.SubmissionSeen):
        awaiting = None if state.awaiting_epoch == event.epoch else state.awaiting_epoch
        return replace(state, submissions=submissions, awaiting_epoch=awaiting)
    if event.reopened == "complete":
        # Forced: somebody wants it all done again, so nothing counts as done.
        state = replace(state, phases={}, details=None, details_phase=None)
    return replace(
        state,
        status=Status.WAITING if event.reopened else state.status,
        submissions=submissions,
        epoch=max(state.epoch, event.epoch),
        awaiting_epoch=event.epoch if event.global_job_id is None else state.awaiting_epoch,
        plan=event.plan or state.plan,
        job_hold=None if event.epoch > state.epoch else state.job_hold,
    )


def after_downtime(state: SubjobState, last_alive_at: float, started_at: float) -> SubjobState:
    """Return a state loaded after a restart: a lease that was live then lasts ttl from now on.

    `last_alive_at` is an instant up to which the server surely answered; a lease whose recorded
    deadline lies before it had lapsed while the server was there to hear its holder.
    """
    if state.status not in HELD or state.holder is None:
        return state
    deadline_at = extended_deadline(
        state.deadline_at, state.holder.ttl_seconds, last_alive_at, started_at
    )
    return state if deadline_at == state.deadline_at else replace(state, deadline_at=deadline_at)


def extended_deadline(
    deadline_at: float, ttl_seconds: float, last_alive_at: float, started_at: float
) -> float:
    """Return the deadline of a held lease after a downtime, by the rule of `after_downtime`."""
    if deadline_at <= last_alive_at:
        return deadline_at
    return max(deadline_at, started_at + ttl_seconds)
