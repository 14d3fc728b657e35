"""What is asked (commands), what happened (events), what is answered (replies, rejections).

Plain values: commands are imperative, events past tense, rejections say the fact. The fields of a
command, less those of the path, are the fields of its JSON body (`htlease.protocol`). Instants
are seconds since 1970 on the server's clock and become RFC 3339 only on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

from htlease.attempt import Evidence, Place, check_name
from htlease.errors import InvalidField
from htlease.plan import TTL_DEFAULT_SECONDS, Plan, check_ttl

DETAILS_MAX_BYTES = 64 * 1024
TEXT_MAX_CHARS = 4000
ARTIFACTS_MAX = 200

#: Who may hold a lease: a job's attempt, a DAGMan script, or a person or service on the access
#: point. Evidence orders attempts of one kind only.
KINDS = ("job", "pre", "post", "operator")
OUTCOMES = ("complete", "failed", "cancelled")


def nonce_digest(nonce: str) -> str:
    """Return what is stored of a nonce, so that neither store nor backup can act as its holder."""
    import hashlib  # loads OpenSSL, which a wrapper's start need not wait for

    return hashlib.sha256(nonce.encode()).hexdigest()[:32]


def _check_text(field_name: str, text: str | None, most: int = TEXT_MAX_CHARS) -> None:
    if text is not None and len(text) > most:
        raise InvalidField(field_name, f"has {len(text)} characters; {most} is the limit")


def _check_details(details: str | None) -> None:
    if details is None or len(details) * 4 <= DETAILS_MAX_BYTES:
        return
    size_bytes = len(details.encode())
    if size_bytes > DETAILS_MAX_BYTES:
        raise InvalidField("details", f"has {size_bytes} bytes; {DETAILS_MAX_BYTES} is the limit")


# ---------------------------------------------------------------- commands


@dataclass(frozen=True)
class Enroll:
    """Announce a submission and get its epoch; later submissions have higher ones."""

    #: None when the submission is still to come; the first unknown one then takes this epoch.
    global_job_id: str | None = None
    #: DAGMan's `$RETRY`, recorded.
    retry: int | None = None
    #: Other IDs by which people look this submission up, e.g. {"source": "19.0", "ce": "812.0"}.
    links: Mapping[str, str] = field(default_factory=dict)
    plan: Plan | None = None
    #: Re-open a subjob that is complete or cancelled.
    force: bool = False

    def __post_init__(self) -> None:
        _check_text("global_job_id", self.global_job_id, 400)
        if len(self.links) > 20:
            raise InvalidField("links", f"has {len(self.links)} entries; 20 is the limit")
        for name, value in self.links.items():
            check_name("links", name)
            _check_text(f"links.{name}", value, 400)


@dataclass(frozen=True)
class Acquire:
    """Ask for the lease on behalf of one start."""

    #: The holder's secret, made by the caller, 16 to 200 characters; the same one again is the
    #: same holder.
    nonce: str
    #: One of KINDS.
    kind: str = "job"
    evidence: Evidence = field(default_factory=Evidence)
    place: Place = field(default_factory=Place)
    global_job_id: str | None = None
    host: str | None = None
    ttl_seconds: float = TTL_DEFAULT_SECONDS
    plan: Plan | None = None

    def __post_init__(self) -> None:
        if not 16 <= len(self.nonce) <= 200:
            raise InvalidField("nonce", "must have 16 to 200 characters; make a random one")
        if self.kind not in KINDS:
            raise InvalidField("kind", f"{self.kind!r} is not one of {', '.join(KINDS)}")
        _check_text("global_job_id", self.global_job_id, 400)
        _check_text("host", self.host, 300)
        for name in ("machine", "slot", "startd"):
            _check_text(f"place.{name}", getattr(self.place, name), 400)
        check_ttl(self.ttl_seconds)


@dataclass(frozen=True)
class FencedCommand:
    """What every write carries: the fence and nonce of the lease it is written under."""

    fence: int
    nonce: str


@dataclass(frozen=True)
class Renew(FencedCommand):
    """Move the deadline; with `details`, save what the current phase needs to resume."""

    details: str | None = None

    def __post_init__(self) -> None:
        _check_details(self.details)


@dataclass(frozen=True)
class Enter(FencedCommand):
    """Record the intent to run a phase, before anything of it starts."""

    phase: str


@dataclass(frozen=True)
class Complete(FencedCommand):
    """Record that a phase is done."""

    phase: str
    #: What the phase made, name -> place or checksum; kept as data.
    artifacts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.artifacts) > ARTIFACTS_MAX:
            raise InvalidField(
                "artifacts", f"has {len(self.artifacts)} entries; {ARTIFACTS_MAX} is the limit"
            )
        for name, value in self.artifacts.items():
            _check_text("artifacts", name, 400)
            _check_text(f"artifacts.{name}", value)


@dataclass(frozen=True)
class Fail(FencedCommand):
    """Record that this attempt could not do a phase; closes nothing."""

    phase: str
    reason: str | None = None
    exit_code: int | None = None

    def __post_init__(self) -> None:
        _check_text("reason", self.reason)


@dataclass(frozen=True)
class Exited(FencedCommand):
    """Record that the payload has ended and how; the lease ends with it."""

    exit_code: int | None = None
    exit_signal: int | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        _check_text("reason", self.reason)


@dataclass(frozen=True)
class Abandon(FencedCommand):
    """Give the lease up unfinished, as at an eviction."""

    reason: str | None = None

    def __post_init__(self) -> None:
        _check_text("reason", self.reason)


@dataclass(frozen=True)
class Commit(FencedCommand):
    """Record that the outputs came back; closes the subjob as complete."""

    reason: str | None = None

    def __post_init__(self) -> None:
        _check_text("reason", self.reason)


@dataclass(frozen=True)
class Settle(FencedCommand):
    """Close the subjob with an outcome that somebody on the access point has found to be true."""

    #: One of OUTCOMES.
    outcome: str
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise InvalidField("outcome", f"{self.outcome!r} is not one of {', '.join(OUTCOMES)}")
        _check_text("reason", self.reason)


@dataclass(frozen=True)
class Cancel:
    """Close the subjob as cancelled whoever holds it; the holder is told at its next call."""

    reason: str | None = None

    def __post_init__(self) -> None:
        _check_text("reason", self.reason)


Command = Union[
    Enroll, Acquire, Renew, Enter, Complete, Fail, Exited, Abandon, Commit, Settle, Cancel
]

# ---------------------------------------------------------------- events


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
    #: Why it was granted: first, abandoned, exited, expired, same-slot, immediate.
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
class SubjobClosed:
    """Nothing more happens here unless a new submission re-opens it."""

    outcome: str
    #: last-phase, committed, settled, cancelled, or state (a terminal state was entered).
    by: str
    fence: int
    reason: str | None = None


Event = Union[
    SubmissionEnrolled,
    SubmissionSeen,
    LeaseAcquired,
    LeaseRenewed,
    DetailsSaved,
    LeaseRecalled,
    AttemptRefused,
    WriteRefused,
    PhaseEntered,
    PhaseCompleted,
    PhaseFailed,
    AttemptExited,
    LeaseAbandoned,
    SubjobClosed,
]

# ---------------------------------------------------------------- replies


@dataclass(frozen=True)
class PhaseToRun:
    """What the holder has to know of one phase of the plan."""

    name: str
    restart: str
    exclusive: bool
    needs: tuple[str, ...]
    #: False when an earlier attempt, or this one, has done it for good.
    run: bool
    completed: bool
    #: How often it was entered, by all attempts.
    entries: int


@dataclass(frozen=True)
class Grant:
    """The lease is the caller's."""

    fence: int
    epoch: int
    attempt_id: str
    attempt_number: int
    expires_in_seconds: float
    #: The first phase to run; None when none is left.
    phase: str | None
    phases: tuple[PhaseToRun, ...]
    #: An earlier attempt had the lease before.
    reclaimed: bool
    #: What was saved last, and in which phase.
    details: str | None
    details_phase: str | None


@dataclass(frozen=True)
class Renewal:
    """How long the lease lasts now and what the holder has to do.

    `order` is continue, stop (a newer attempt waits, or the subjob is closed) or cancel.
    """

    expires_in_seconds: float
    order: str
    outcome: str | None = None


@dataclass(frozen=True)
class PhaseRecord:
    """What is known of one phase; intent (entered) and completion are separate facts."""

    name: str
    entries: int = 0
    entered_fence: int | None = None
    entered_at: float | None = None
    completed_fence: int | None = None
    completed_at: float | None = None
    failed_fence: int | None = None
    failed_at: float | None = None
    reason: str | None = None
    exit_code: int | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    #: What an attempt saved last in this phase.
    details: str | None = None


@dataclass(frozen=True)
class Enrolled:
    """The epoch of a submission."""

    epoch: int


@dataclass(frozen=True)
class SubjobReply:
    """The subjob as the command left it, in short."""

    status: str
    fence: int
    outcome: str | None


Reply = Union[Grant, Renewal, PhaseRecord, Enrolled, SubjobReply]

# ---------------------------------------------------------------- rejections

#: The stable codes of the wire protocol and their HTTP status.
STATUS_OF_CODE: Mapping[str, int] = {
    "invalid": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown-subjob": 404,
    "not-found": 404,
    "method-not-allowed": 405,
    "lease-still-live": 409,
    "subjob-closed": 409,
    "phase-order": 409,
    "blocked": 409,
    "superseded-attempt": 410,
    "stale-fence": 412,
    "too-large": 413,
    "request-id-reused": 422,
    "internal": 500,
    "overloaded": 503,
}


@dataclass(frozen=True)
class Rejection:
    """The fact for which a command was refused; callers act on `code`, people read `detail`."""

    code: str
    detail: str
    retry_after_seconds: float | None = None
    outcome: str | None = None
    field: str | None = None
    flag: str | None = None
    #: Recorded although the command was refused: a recall, or the refusal itself.
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Accepted:
    """The command's events, to be made durable before the reply is sent."""

    events: tuple[Event, ...]
    reply: Reply


Decision = Union[Accepted, Rejection]
