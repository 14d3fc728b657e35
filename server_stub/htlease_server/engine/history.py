"""Events and states as they are stored, and the attempts that a history tells of."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import typing
import zlib
from collections.abc import Iterable
from typing import Any

import msgspec

from htlease.rules import messages as m
from htlease.rules.state import REQUESTS_KEPT, SubjobState, evolve
from htlease.wire.protocol import rfc3339
from htlease_server.models.response_models import Attempt, AttemptPhase, Closing
from htlease_server.store.base import HistoryRow

_EVENTS: tuple[type[m.Event], ...] = typing.get_args(m.Event)
#: `LeaseAcquired` -> `lease-acquired`
EVENT_NAMES = {event: re.sub(r"(?<!^)(?=[A-Z])", "-", event.__name__).lower() for event in _EVENTS}
_EVENT_OF_NAME = {name: event for event, name in EVENT_NAMES.items()}
#: Of no use to a reader, and half of what it takes to act as a holder.
NEVER_SHOWN = ("nonce_digest",)

_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_Snapshot = typing.Union[SubjobState, tuple[SubjobState, bytes]]  # noqa: UP007
_snapshots: msgspec.msgpack.Decoder[_Snapshot] = msgspec.msgpack.Decoder(_Snapshot)
_FINGERPRINT_BYTES = 4


def snapshot_of(state: SubjobState, fingerprints: bytes | None = None) -> bytes:
    """Return a state as it is stored, with the fingerprints of its requests where known."""
    return _msgpack.encode(state if fingerprints is None else (state, fingerprints))


def snapshot_from(snapshot: bytes, deadline_at: float) -> tuple[SubjobState, bytes | None]:
    """Read a stored state and the fingerprints beside it; the deadline is stored elsewhere."""
    found = _snapshots.decode(snapshot)
    state, fingerprints = found if isinstance(found, tuple) else (found, None)
    if state.deadline_at != deadline_at:
        state = dataclasses.replace(state, deadline_at=deadline_at)
    return state, fingerprints


def state_from(snapshot: bytes, deadline_at: float) -> SubjobState:
    """Read a stored state; the deadline is stored elsewhere."""
    return snapshot_from(snapshot, deadline_at)[0]


def fingerprint_of(request_id: str) -> bytes:
    """Return what tells most request IDs from each other, in few bytes."""
    return zlib.crc32(request_id.encode()).to_bytes(_FINGERPRINT_BYTES, "big")


def fingerprints_with(fingerprints: bytes, request_id: str) -> bytes:
    """Return the fingerprints of the requests recognised once one more has been accepted."""
    return (fingerprints + fingerprint_of(request_id))[-_FINGERPRINT_BYTES * REQUESTS_KEPT :]


def data_of(event: m.Event) -> str:
    """Return an event's fields as JSON.

    Details may have 64 KiB and be saved every minute, so of them the history keeps size and
    checksum; the text saved last is in the state.
    """
    if isinstance(event, m.DetailsSaved):
        text = event.details.encode()
        return _json.encode(
            {
                "fence": event.fence,
                "phase": event.phase,
                "details_bytes": len(text),
                "details_sha256": hashlib.sha256(text).hexdigest(),
                "deadline_at": event.deadline_at,
            }
        ).decode()
    return _json.encode(event).decode()


def ids_in(event: m.Event) -> list[str]:
    """Return the IDs by which an event makes its subjob known."""
    if isinstance(event, m.LeaseAcquired):
        return [event.attempt_id]
    if isinstance(event, m.SubmissionSeen):
        return [event.global_job_id]
    if isinstance(event, (m.JobHeld, m.JobRemoved)):
        return [event.global_job_id]  # a job may be held before anybody on it could speak
    if isinstance(event, m.SubmissionEnrolled):
        job_ids = [] if event.global_job_id is None else [event.global_job_id]
        return [*job_ids, *event.links.values()]
    return []


def event_from(row: HistoryRow) -> m.Event:
    """Read a stored event; the details of DetailsSaved come back as their checksum."""
    cls = _EVENT_OF_NAME[row.event]
    if cls is m.DetailsSaved:
        data = msgspec.json.decode(row.data)
        return m.DetailsSaved(
            data["fence"], data["phase"], data["details_sha256"], data["deadline_at"]
        )
    event: m.Event = msgspec.json.decode(row.data, type=cls)
    return event


def fold(rows: Iterable[HistoryRow]) -> SubjobState:
    """Return the state that a history leads to; renewals are not in it, nor are details."""
    state = SubjobState()
    for row in rows:
        state = evolve(state, event_from(row), row.at)
    return state


def event_document(row: HistoryRow) -> dict[str, Any]:
    """Return an event as `GET …/history` shows it."""
    fields: dict[str, Any] = msgspec.json.decode(row.data)
    for name in NEVER_SHOWN:
        fields.pop(name, None)
    if "deadline_at" in fields:
        fields["deadline_at"] = rfc3339(fields["deadline_at"])
    return {
        "seq": row.seq,
        "at": rfc3339(row.at),
        "event": row.event,
        "actor": row.actor,
        "request_id": row.request_id,
        "client_at": row.client_at,
        "via": row.via,
        **fields,
    }


#: What attempts and submissions are told from. A long job saves details thousands of times.
MILESTONES = tuple(
    name
    for event, name in EVENT_NAMES.items()
    if event not in (m.LeaseRenewed, m.DetailsSaved, m.AttemptRefused, m.WriteRefused)
)


def attempts_of(rows: Iterable[HistoryRow]) -> list[Attempt]:
    """Return one entry for each grant, oldest first, with how it ended."""
    attempts: list[Attempt] = []
    for row in rows:
        event, at = event_from(row), rfc3339(row.at)
        if isinstance(event, m.LeaseAcquired):
            if attempts and event.ended_before:
                _end(attempts[-1], event.ended_before, at)
            attempts.append(_attempt(event, at))
        elif not attempts or getattr(event, "fence", None) != attempts[-1]["fence"]:
            continue
        elif isinstance(event, m.AttemptExited):
            attempts[-1]["exit_code"] = event.exit_code
            attempts[-1]["exit_signal"] = event.exit_signal
            attempts[-1]["reason"] = event.reason
            if attempts[-1]["end"] in (None, "closed"):  # reported again, it ends no later
                _end(attempts[-1], "exited", at)
        elif isinstance(event, m.LeaseAbandoned):
            attempts[-1]["reason"] = event.reason
            _end(attempts[-1], "abandoned", at)
        elif isinstance(event, m.SubjobClosed):
            if attempts[-1]["end"] is None:
                _end(attempts[-1], "closed", at)
        elif isinstance(event, (m.PhaseEntered, m.PhaseCompleted, m.PhaseFailed)):
            _note_phase(attempts[-1]["phases"], event, at)
    return attempts


def closing_of(rows: Iterable[HistoryRow]) -> Closing | None:
    """Return how the subjob was closed last, or None when it never was."""
    closing: Closing | None = None
    for row in rows:
        event = event_from(row)
        if isinstance(event, m.SubjobClosed):
            closing = {
                "outcome": event.outcome,
                "by": event.by,
                "reason": event.reason,
                "at": rfc3339(row.at),
            }
    return closing


def _attempt(event: m.LeaseAcquired, at: str) -> Attempt:
    return {
        "attempt_number": event.attempt_number,
        "attempt_id": event.attempt_id,
        "fence": event.fence,
        "kind": event.kind,
        "epoch": event.epoch,
        "host": event.host,
        "slot": event.place.slot,
        "machine": event.place.machine,
        "why": event.why,
        "granted_at": at,
        "ended_at": None,
        "end": None,
        "exit_code": None,
        "exit_signal": None,
        "reason": None,
        "phases": [],
    }


def _end(attempt: Attempt, end: str, at: str) -> None:
    attempt["end"], attempt["ended_at"] = end, at


def _note_phase(
    phases: list[AttemptPhase],
    event: m.PhaseEntered | m.PhaseCompleted | m.PhaseFailed,
    at: str,
) -> None:
    if isinstance(event, m.PhaseEntered):
        phases.append(
            {"name": event.phase, "entered_at": at, "completed_at": None, "failed_at": None}
        )
        return
    for phase in reversed(phases):
        if phase["name"] == event.phase:
            if isinstance(event, m.PhaseCompleted):
                phase["completed_at"] = at
            else:
                phase["failed_at"] = at
            return
