"""What is asked: imperative values, checked when they are made.

The fields of a command, less those of the path, are the fields of its JSON body
(`htlease.wire.protocol`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

from htlease.errors import InvalidField
from htlease.rules.attempt import Evidence, Place, check_name
from htlease.rules.plan import TTL_DEFAULT_SECONDS, Plan, check_ttl

DETAILS_MAX_BYTES = 64 * 1024
TEXT_MAX_CHARS = 4000
#: Of a workflow's label.
LABEL_MAX_CHARS = 400
ARTIFACTS_MAX = 200

#: Who may hold a lease: a job's attempt, a DAGMan script, or a person or service on the access
#: point. Evidence orders attempts of one kind only.
KINDS = ("job", "pre", "post", "operator")
OUTCOMES = ("complete", "failed", "cancelled")


@functools.lru_cache(maxsize=10_000)
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
    #: Grant nothing while a flag holds back the phase that comes first: the caller's job begins it
    #: before the server can be asked. None means no, as does an absent field.
    heeds_flags: bool | None = None
    #: False: a subjob that failed stays so, although this submission is new. For who is started
    #: anew without anybody's wish, as by RETRY; only an enrolment opens it then. None means yes.
    reopens: bool | None = None

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
    #: It runs already, begun while the server was away, so no flag can hold it back any more.
    is_underway: bool = False


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
    #: HTCondor has no output to bring back and no reason to run the job again, so that nobody has
    #: to say later that all came back.
    is_all_back: bool | None = None

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
class Ended:
    """Report from the access point that one start is proven to be over, see `end_proof`.

    Nobody on the execution point may be left to say so: a starter hook does not run when the
    starter is killed. The report names the start exactly, for an earlier one may still be alive
    somewhere and believe in its lease; a report that matches no holder changes nothing.
    """

    global_job_id: str
    #: `NumJobStarts` and `NumShadowStarts` as the queue or the history had them after the end.
    #: After a reconnect the latter is ahead of the start: then its lease has to run out.
    job_starts: int | None = None
    shadow_starts: int | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        _check_text("global_job_id", self.global_job_id, 400)
        Evidence(job_starts=self.job_starts, shadow_starts=self.shadow_starts)
        _check_text("reason", self.reason)


#: What may be observed of a job in the queue.
OBSERVATIONS = ("held", "released", "removed", "ended")


@dataclass(frozen=True)
class Observed:
    """Record what the access point saw done to a subjob's job; nobody's lease changes.

    A held job may run on for a while, and neither what removed a job nor its end in the queue
    ends its lease: the history says why nothing happens, and no more.
    """

    global_job_id: str
    #: One of OBSERVATIONS.
    what: str
    #: Who did it: `user`, `htlease`, `job-policy`, `site-policy`, `htcondor`.
    by: str | None = None
    reason: str | None = None
    #: `HoldReasonCode` and `HoldReasonSubCode`.
    code: int | None = None
    subcode: int | None = None

    def __post_init__(self) -> None:
        _check_text("global_job_id", self.global_job_id, 400)
        if self.what not in OBSERVATIONS:
            raise InvalidField("what", f"{self.what!r} is not one of {', '.join(OBSERVATIONS)}")
        if self.by is not None:
            check_name("by", self.by)
        _check_text("reason", self.reason)


@dataclass(frozen=True)
class Cancel:
    """Close the subjob as cancelled whoever holds it; the holder is told at its next call."""

    reason: str | None = None

    def __post_init__(self) -> None:
        _check_text("reason", self.reason)


Command = Union[
    Enroll,
    Acquire,
    Renew,
    Enter,
    Complete,
    Fail,
    Exited,
    Abandon,
    Ended,
    Observed,
    Commit,
    Settle,
    Cancel,
]
