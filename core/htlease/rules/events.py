"""What happened: past tense, kept for ever in a subjob's history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

from htlease.rules.attempt import Evidence, Place
from htlease.rules.plan import Plan


@dataclass(frozen=True)
class SubmissionEnrolled:
    """An epoch was issued; `global_job_id` None means that it waits for its submission."""

    epoch: int
    global_job_id: str | None
    retry: int | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    plan: Plan | None = None
    #: The outcome that this re-opened.
    reopened: str | None = None


@dataclass(frozen=True)
class SubmissionSeen:
    """A submission took the epoch that was waiting for it."""

    epoch: int
    global_job_id: str


@dataclass(frozen=True)
class LeaseAcquired:
    """A new holder; every older fence is shut out from here on."""

    fence: int
    epoch: int
    kind: str
    attempt_id: str
    attempt_number: int
    evidence: Evidence
    place: Place
    host: str | None
    nonce_digest: str
    ttl_seconds: float
    deadline_at: float
    #: Why it was granted: first, abandoned, exited, expired, same-slot, immediate; waiting or
    #: failed, of a subjob that was opened again; restored, which is nobody's.
    why: str
    #: How the lease before this one ended, when this grant ended it: expired or superseded.
    ended_before: str | None = None
    plan: Plan | None = None


@dataclass(frozen=True)
class LeaseRenewed:
    """The deadline moved; may reach the disk late, since a restart extends every live lease."""

    fence: int
    deadline_at: float


@dataclass(frozen=True)
class DetailsSaved:
    """The holder saved what its current phase needs to resume."""

    fence: int
    phase: str | None
    details: str
    deadline_at: float


@dataclass(frozen=True)
class PlanChanged:
    """The holder brought another plan before it entered a phase, as a wrapper does after a hook."""

    fence: int
    plan: Plan
    deadline_at: float
    #: How long its lease lasts from here on; None in histories of earlier versions: as before.
    ttl_seconds: float | None = None


@dataclass(frozen=True)
class LeaseRecalled:
    """A newer attempt waits; the holder may finish within its deadline but not renew."""

    fence: int
    by_attempt_id: str


@dataclass(frozen=True)
class AttemptRefused:
    """Somebody asked for the lease and did not get it; recorded once for each reason."""

    code: str
    attempt_id: str
    nonce_digest: str
    host: str | None
    why: str


@dataclass(frozen=True)
class WriteRefused:
    """A write came under a fence that is not, or no longer, the holder's; changed nothing."""

    code: str
    fence: int
    call: str


@dataclass(frozen=True)
class PhaseEntered:
    """A phase is about to run."""

    fence: int
    phase: str
    #: It ran already, begun while the server was away.
    is_underway: bool = False


@dataclass(frozen=True)
class PhaseCompleted:
    """A phase is done."""

    fence: int
    phase: str
    artifacts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PhaseFailed:
    """This attempt could not do a phase."""

    fence: int
    phase: str
    reason: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class AttemptExited:
    """The payload has ended and the lease with it; outputs may still be on their way."""

    fence: int
    exit_code: int | None = None
    exit_signal: int | None = None
    reason: str | None = None


@dataclass(frozen=True)
class LeaseAbandoned:
    """The holder gave the lease up unfinished."""

    fence: int
    reason: str | None = None


@dataclass(frozen=True)
class JobHeld:
    """HTCondor holds the subjob's job: it starts no more until it is released."""

    global_job_id: str
    by: str | None = None
    reason: str | None = None
    code: int | None = None
    subcode: int | None = None


@dataclass(frozen=True)
class JobReleased:
    """The hold is over; the job may start again."""

    global_job_id: str
    by: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class JobRemoved:
    """The subjob's job, or the DAG that it was a node of, was removed from the queue."""

    global_job_id: str
    by: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class JobEnded:
    """The access point says that the job is over, and nothing proves that its processes are."""

    global_job_id: str
    by: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class SubjobClosed:
    """Nothing more happens here unless a new submission re-opens it."""

    outcome: str
    #: last-phase, nothing-left, all-back, committed, settled, cancelled, walltime, or state (a
    #: terminal one was entered).
    by: str
    fence: int
    reason: str | None = None


Event = Union[
    SubmissionEnrolled,
    SubmissionSeen,
    LeaseAcquired,
    LeaseRenewed,
    DetailsSaved,
    PlanChanged,
    LeaseRecalled,
    AttemptRefused,
    WriteRefused,
    PhaseEntered,
    PhaseCompleted,
    PhaseFailed,
    AttemptExited,
    LeaseAbandoned,
    JobHeld,
    JobReleased,
    JobRemoved,
    JobEnded,
    SubjobClosed,
]
