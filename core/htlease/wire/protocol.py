"""Wire protocol, version 1: commands and replies as JSON over HTTP, for both ends.

The body of a call has the fields of its command, less those in the path, plus `request_id` and,
as mere data, `client_at`. Replies are their fields. Instants are RFC 3339 UTC, durations are
`*_seconds`. Both ends ignore unknown fields in a reply; the server refuses them in a request.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from htlease.errors import InvalidField
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.plan import PhaseSpec, Plan
from htlease.wire.retry import VERSION as VERSION
from htlease.wire.retry import quoted
from htlease.wire.retry import workflow_path as workflow_path

BODY_MAX_BYTES = 256 * 1024
REQUEST_ID_MAX_CHARS = 100

#: `POST /v1/workflows/{w}/subjobs/{s}/CALL`
SUBJOB_CALLS: Mapping[str, type[m.Command]] = {
    "enroll": m.Enroll,
    "acquire": m.Acquire,
    "renew": m.Renew,
    "exited": m.Exited,
    "abandon": m.Abandon,
    "ended": m.Ended,
    "observed": m.Observed,
    "commit": m.Commit,
    "settle": m.Settle,
    "cancel": m.Cancel,
}
#: `POST /v1/workflows/{w}/subjobs/{s}/phases/{p}/CALL`
PHASE_CALLS: Mapping[str, type[m.Command]] = {
    "enter": m.Enter,
    "complete": m.Complete,
    "fail": m.Fail,
}
_CALL_OF = {
    command: call for calls in (SUBJOB_CALLS, PHASE_CALLS) for call, command in calls.items()
}


def call_of(command: m.Command) -> str:
    """Return the last word of a command's path."""
    return _CALL_OF[type(command)]


def subjob_path(key: SubjobKey) -> str:
    """Return the path of a subjob, percent-encoded."""
    return f"{workflow_path(key.workflow)}/subjobs/{quoted(key.subjob)}"


def command_path(key: SubjobKey, command: m.Command) -> str:
    """Return the path to which a command is posted."""
    call = call_of(command)
    if call in PHASE_CALLS:
        phase: str = command.phase  # type: ignore[union-attr]
        return f"{subjob_path(key)}/phases/{quoted(phase)}/{call}"
    return f"{subjob_path(key)}/{call}"


def body_of(command: m.Command, request_id: str, client_at: str | None = None) -> dict[str, Any]:
    """Return the JSON body of a command; parts that are absent are left out."""
    body: dict[str, Any] = _plain(command)
    if call_of(command) in PHASE_CALLS:
        del body["phase"]
    body["request_id"] = request_id
    if client_at is not None:
        body["client_at"] = client_at
    return body


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {
            field.name: _plain(part)
            for field in fields(value)
            if (part := getattr(value, field.name)) is not None
        }
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return dict(value) if isinstance(value, Mapping) else value


def plan_from(document: Mapping[str, Any]) -> Plan:
    """Read a plan as it stands in a body; a profile alone brings its own phases.

    Raises InvalidField naming what cannot be used.
    """
    unknown = set(document) - {"phases", "takeover", "profile", "on_wall_time"}
    if unknown:
        raise InvalidField(f"plan.{sorted(unknown)[0]}", "is not a field of a plan")
    takeover = document.get("takeover", "wait")
    on_wall_time = document.get("on_wall_time")
    profile = document.get("profile")
    phases = document.get("phases") or ()
    if profile is not None and not phases:
        from htlease.rules.profiles import plan_of  # seldom needed, and not by a wrapper

        return replace(plan_of(profile, takeover), on_wall_time=on_wall_time)
    return Plan(
        tuple(
            PhaseSpec(
                phase["name"],
                phase.get("restart", "redo"),
                phase.get("exclusive", False),
                tuple(phase.get("needs", ())),
            )
            for phase in phases
        ),
        takeover,
        profile,
        on_wall_time,
    )


@functools.lru_cache(maxsize=1000)
def rfc3339(at: float) -> str:
    """Return an instant (seconds since 1970) as RFC 3339 UTC with milliseconds."""
    moment = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(instant: str) -> float:
    """Return the seconds since 1970 of an instant as `rfc3339` writes it."""
    # Python 3.9 and 3.10 do not read the Z.
    return datetime.datetime.fromisoformat(instant.replace("Z", "+00:00")).timestamp()


def reply_document(reply: m.Reply) -> dict[str, Any]:
    """Return the JSON document of a reply; instants become RFC 3339."""
    document = dict(vars(reply))
    for name in ("entered_at", "completed_at", "failed_at"):
        if document.get(name) is not None:
            document[name] = rfc3339(document[name])
    return document


def grant_from(document: Mapping[str, Any]) -> m.Grant:
    """Read a grant; raises KeyError or TypeError when the answer is not one."""
    known = {field.name for field in fields(m.PhaseToRun)}
    phases = tuple(
        m.PhaseToRun(
            **{name: phase[name] for name in known if name != "needs"},
            needs=tuple(phase["needs"]),
        )
        for phase in document["phases"]
    )
    names = {field.name for field in fields(m.Grant)} - {"phases"}
    return m.Grant(**{name: document[name] for name in names}, phases=phases)


def renewal_from(document: Mapping[str, Any]) -> m.Renewal:
    """Read a renewal; raises KeyError when the answer is not one."""
    return m.Renewal(document["expires_in_seconds"], document["order"], document.get("outcome"))


def problem_document(rejection: m.Rejection, key: SubjobKey | None = None) -> dict[str, Any]:
    """Return the RFC 9457 problem of a rejection."""
    document: dict[str, Any] = {
        "type": f"urn:htlease:problem:{rejection.code}",
        "title": rejection.code.replace("-", " "),
        "status": m.STATUS_OF_CODE[rejection.code],
        "code": rejection.code,
        "detail": rejection.detail,
    }
    if key is not None:
        document["subjob"] = str(key)
    for name in ("retry_after_seconds", "outcome", "field", "flag"):
        value = getattr(rejection, name)
        if value is not None:
            document[name] = value
    return document
