"""Who may make which call: one table for all tokens. Pure.

`docs/security.md` shows this table; a test compares the two.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from htlease.errors import InvalidField
from htlease.rules import messages as m
from htlease.wire.protocol import PHASE_CALLS


class Role(str, enum.Enum):
    """What a token makes of whoever sends it."""

    #: Everything, other people's tokens and the signing keys included.
    ADMIN = "admin"
    #: Keeps things going: all of an operator's and of the agent's calls.
    OPERATOR = "operator"
    #: Makes workflows and runs them.
    SUBMITTER = "submitter"
    #: The scripts of one workflow on the access point.
    WORKFLOW = "workflow"
    #: One subjob's job, on a machine that is not trusted with more.
    JOB = "job"
    #: Looks.
    READER = "reader"

    # Each request looks roles up; Enum's own is written in Python.
    __hash__ = str.__hash__


_LOOKING = frozenset(Role)
_LOOKING_AT_ALL = _LOOKING - {Role.JOB}
_HOLDING = _LOOKING - {Role.READER}
_ON_ACCESS_POINT = _HOLDING - {Role.JOB}
_SUBMITTING = _ON_ACCESS_POINT - {Role.WORKFLOW}
_OPERATING = _SUBMITTING - {Role.SUBMITTER}
ADMINISTERING = frozenset({Role.ADMIN})

#: Call, as `routes` names it -> who may make it within their scope. What is not here nobody may.
MAY: Mapping[str, frozenset[Role]] = {
    **dict.fromkeys(("subjob", "history", "find", "maintenance", "flags"), _LOOKING),
    "workflow": _LOOKING_AT_ALL,
    "workflows": _LOOKING_AT_ALL - {Role.WORKFLOW},
    **dict.fromkeys(("acquire", "renew", "exited", "abandon", *PHASE_CALLS), _HOLDING),
    **dict.fromkeys(("enroll", "ended", "observed", "commit", "settle"), _ON_ACCESS_POINT),
    "mint": _ON_ACCESS_POINT,
    **dict.fromkeys(("put-workflow", "cancel"), _SUBMITTING),
    **dict.fromkeys(("put-maintenance", "announce", "withdraw", "put-flag", "audit"), _OPERATING),
    **dict.fromkeys(("tokens", "revoke", "keys", "rotate-key", "trim"), ADMINISTERING),
}
#: Calls for monitors and people, without any token.
OPEN_TO_ALL = ("healthz", "readyz", "metrics", "openapi", "home")
#: As which kind of holder a role acquires.
KINDS: Mapping[Role, tuple[str, ...]] = {
    **dict.fromkeys((Role.ADMIN, Role.OPERATOR, Role.SUBMITTER), m.KINDS),
    Role.WORKFLOW: ("job", "pre", "post"),
    Role.JOB: ("job",),
    Role.READER: (),
}
#: For which roles a role makes tokens, whose scope is never wider than its own.
MINTS: Mapping[Role, tuple[Role, ...]] = {
    Role.ADMIN: (Role.OPERATOR, Role.SUBMITTER, Role.WORKFLOW, Role.JOB, Role.READER),
    Role.OPERATOR: (Role.WORKFLOW, Role.JOB),
    Role.SUBMITTER: (Role.WORKFLOW, Role.JOB, Role.READER),
    Role.WORKFLOW: (Role.JOB,),
    Role.JOB: (),
    Role.READER: (),
}
#: Role -> the calls that it makes.
CALLS = {role: frozenset(call for call, may in MAY.items() if role in may) for role in Role}


def role_named(text: str) -> Role:
    """Return a role that a token can have; raises InvalidField."""
    try:
        role = Role(text)
    except ValueError:
        role = Role.ADMIN
    if role is Role.ADMIN:
        names = ", ".join(role.value for role in Role if role is not Role.ADMIN)
        raise InvalidField("role", f"{text!r} is not one of {names}")
    return role
