"""Attempts as a subjob's history tells them; pure, over the events of the wire.

An event is a mapping as the server's history gives it: `event` is the kind, `at` an RFC 3339
instant, the rest the fields of that event. Unknown kinds of events are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Event = Mapping[str, Any]

_KIND_NAMES = {"pre": "PRE script", "post": "POST script", "operator": "operator"}


@dataclass
class Attempt:
    """One holder of the lease, or one that asked and never got it."""

    attempt_id: str
    kind: str = "job"
    #: 0 when it never held the lease.
    number: int = 0
    host: str | None = None
    #: The grant, and None for an attempt that was only refused.
    grant: Event | None = None
    #: The attempt that held the lease before.
    before: Attempt | None = None
    #: The event that ended its lease; None while it lasts.
    end: Event | None = None
    #: The next holder, once there is one.
    next: Attempt | None = None
    refusals: list[Event] = field(default_factory=list)
    recalls: list[Event] = field(default_factory=list)
    #: Its writes that were refused.
    late_writes: list[Event] = field(default_factory=list)
    phases: list[Event] = field(default_factory=list)
    #: What was done to its job in the queue while it was the last to hold the lease.
    observed: list[Event] = field(default_factory=list)

    @property
    def fence(self) -> int | None:
        """The fence it was granted."""
        return self.grant["fence"] if self.grant else None

    @property
    def name(self) -> str:
        """How people call it: `attempt 2`, `the POST script`, or the ID of one without number."""
        if self.kind != "job":
            return f"the {_KIND_NAMES.get(self.kind, self.kind)}"
        return f"attempt {self.number}" if self.number else f"attempt {self.attempt_id}"


_ENDS = ("attempt-exited", "lease-abandoned", "subjob-closed")
_OBSERVED = ("job-held", "job-released", "job-removed", "job-ended")
_PHASES = ("phase-entered", "phase-completed", "phase-failed")


def read_attempts(events: Sequence[Event]) -> list[Attempt]:
    """Return every attempt in the order in which it first appears."""
    attempts: list[Attempt] = []
    by_fence: dict[int, Attempt] = {}
    asking: dict[str, Attempt] = {}
    granted: dict[str, Attempt] = {}
    holder: Attempt | None = None
    for event in events:
        kind = event["event"]
        if kind == "lease-acquired":
            attempt = asking.pop(event["attempt_id"], None)
            if attempt is None:
                attempt = Attempt(event["attempt_id"])
                attempts.append(attempt)
            attempt.kind, attempt.host = event["kind"], event.get("host")
            attempt.number = event["attempt_number"] if event["kind"] == "job" else 0
            attempt.grant, attempt.before = event, holder
            if holder is not None:
                holder.next = attempt
                if holder.end is None:
                    holder.end = event
            holder = attempt
            by_fence[event["fence"]] = granted[attempt.attempt_id] = attempt
        elif kind == "attempt-refused":
            asked = asking.get(event["attempt_id"]) or granted.get(event["attempt_id"])
            if asked is None:
                asked = Attempt(event["attempt_id"], host=event.get("host"))
                asking[asked.attempt_id] = asked
                attempts.append(asked)
            asked.refusals.append(event)
        elif kind in _OBSERVED:
            if holder is not None and holder.attempt_id.startswith(f"{event['global_job_id']}@"):
                holder.observed.append(event)
        elif (owner := by_fence.get(event.get("fence", -1))) is not None:
            _add(owner, kind, event)
    return attempts


def _add(owner: Attempt, kind: str, event: Event) -> None:
    if kind in _ENDS:
        if owner.end and owner.end["event"] == "lease-abandoned" and kind == "attempt-exited":
            # The access point knew why: a limit on run time, of which the job heard a signal only.
            owner.end = {**owner.end, "reason": event["reason"]}
        owner.end = owner.end or event
    elif kind in _PHASES:
        owner.phases.append(event)
    elif kind == "lease-recalled":
        owner.recalls.append(event)
    elif kind == "write-refused":
        owner.late_writes.append(event)


def ending_text(event: Event) -> str:
    """Say how a payload ended: `exit code 3`, `killed by signal 9`."""
    if event.get("exit_signal") is not None:
        return f"killed by signal {event['exit_signal']}"
    if event.get("exit_code") is not None:
        return f"exit code {event['exit_code']}"
    return "exit status unknown"
