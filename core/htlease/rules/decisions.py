"""What is answered: replies to accepted commands, and the facts for which others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from htlease.rules.events import Event


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
    "quota-exceeded": 409,
    "superseded-attempt": 410,
    "stale-fence": 412,
    "too-large": 413,
    "request-id-reused": 422,
    "internal": 500,
    "not-implemented": 501,
    "overloaded": 503,
    # The store failed in the midst of it; the same request, sent again, tells.
    "outcome-unknown": 503,
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
