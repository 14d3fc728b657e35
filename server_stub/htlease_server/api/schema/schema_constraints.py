"""What the commands check of each field, in the words of JSON Schema, for the OpenAPI document.

The checks themselves are in `htlease.rules`: `messages`, `plan` and `attempt`; a server
asked by every body that this allows and forbids shows whether both say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from htlease.rules import messages as m
from htlease.rules.attempt import NAME_LENGTH_MAX, NAME_PATTERN
from htlease.rules.plan import (
    ON_WALL_TIME,
    PHASES_MAX,
    RESTARTS,
    TAKEOVERS,
    TTL_MAX_SECONDS,
    TTL_MIN_SECONDS,
)
from htlease.rules.profiles import PROFILE_NAMES, load_profile
from htlease_server.auth.job_tokens import TTL_MAX_SECONDS as TOKEN_TTL_MAX_SECONDS
from htlease_server.auth.roles import MINTS, Role
from htlease_server.engine.site.maintenance import WINDOW_MAX_SECONDS
from htlease_server.engine.site.retention import AGE_MAX_SECONDS, AGE_MIN_SECONDS

Schema = dict[str, Any]

NAME: Schema = {
    "pattern": f"^{NAME_PATTERN}$",
    "minLength": 1,
    "maxLength": NAME_LENGTH_MAX,
    "not": {"enum": [".", ".."]},
}
_PATTERN: Schema = {
    "pattern": f"^({NAME_PATTERN}\\*?|\\*)$",
    "minLength": 1,
    "maxLength": NAME_LENGTH_MAX,
    "not": {"enum": [".", "..", ".*", "..*"]},
}
#: Roles of tokens that are made by naming a workflow.
_OF_JOBS = (Role.WORKFLOW, Role.JOB)
_ID = {"maxLength": 400}
_TEXT = {"maxLength": m.TEXT_MAX_CHARS}
_COUNT = {"minimum": 0}
_PROFILE = {
    "enum": [
        *PROFILE_NAMES,
        *(f"{name}:{flow.name}" for name in PROFILE_NAMES for flow in load_profile(name).flows),
    ]
}
#: Fields of several commands.
_COMMAND: Mapping[str, Schema] = {
    "reason": _TEXT,
    "global_job_id": _ID,
    "job_starts": _COUNT,
    "shadow_starts": _COUNT,
}
_COMMANDS = {f"{command.__name__}Body" for command in get_args(m.Command)}
#: Schema -> field -> what is true of every value that is taken.
_OF: Mapping[str, Mapping[str, Schema]] = {
    "AcquireBody": {
        "nonce": {"minLength": 16, "maxLength": 200},
        "kind": {"enum": list(m.KINDS)},
        "host": {"maxLength": 300},
        "ttl_seconds": {"minimum": TTL_MIN_SECONDS, "maximum": TTL_MAX_SECONDS},
    },
    "EnrollBody": {
        "links": {
            "maxProperties": 20,
            "propertyNames": NAME,
            "additionalProperties": {"type": "string", **_ID},
        },
    },
    "RenewBody": {"details": {"maxLength": m.DETAILS_MAX_BYTES}},
    "CompleteBody": {
        "artifacts": {
            "maxProperties": m.ARTIFACTS_MAX,
            "propertyNames": _ID,
            "additionalProperties": {"type": "string", **_TEXT},
        },
    },
    "ObservedBody": {"what": {"enum": list(m.OBSERVATIONS)}, "by": NAME},
    "SettleBody": {"outcome": {"enum": list(m.OUTCOMES)}},
    "Evidence": dict.fromkeys(
        ("job_starts", "shadow_starts", "shadow_birthdate", "sandbox_seq"), _COUNT
    ),
    "Place": dict.fromkeys(("machine", "slot", "startd"), _ID),
    "Plan": {
        "phases": {"maxItems": PHASES_MAX},
        "takeover": {"enum": list(TAKEOVERS)},
        "profile": _PROFILE,
        "on_wall_time": {"enum": list(ON_WALL_TIME)},
    },
    "PhaseSpec": {
        "name": NAME,
        "restart": {"enum": list(RESTARTS)},
        "needs": {"items": {"type": "string", **NAME}},
    },
    "TokenBody": {
        "workflow": NAME,
        "subjob": NAME,
        "name": NAME,
        "role": {"enum": [role.value for role in MINTS[Role.ADMIN] if role not in _OF_JOBS]},
        "workflows": {"items": {"type": "string", **_PATTERN}},
        "ttl_seconds": {"minimum": 1, "maximum": TOKEN_TTL_MAX_SECONDS},
    },
    "RevokeBody": {"workflow": NAME, "subjob": NAME},
    "WorkflowBody": {"profile": _PROFILE, "copy_of": NAME},
    "TrimBody": {"older_than_seconds": {"minimum": AGE_MIN_SECONDS, "maximum": AGE_MAX_SECONDS}},
    "MaintenanceBody": {"ends_in_seconds": {"minimum": 0, "maximum": WINDOW_MAX_SECONDS}},
}
_PHASES_OR_PROFILE = [
    {"required": ["phases"], "properties": {"phases": {"minItems": 1}}},
    {"required": ["profile"], "properties": {"profile": {"type": "string"}}},
]
_PLAN_AND_NO_PROFILE = [
    {"properties": {"plan": {"type": "null"}}},
    {"properties": {"profile": {"type": "null"}}},
]


def _given(*names: str) -> Schema:
    there = {name: {"not": {"type": "null"}} for name in names}
    return {"required": list(names), "properties": there}


def _not_given(*names: str) -> Schema:
    return {"properties": {name: {"type": "null"} for name in names}}


_TOKEN_FORMS = [
    {
        "allOf": [
            _given("workflow"),
            _not_given("role", "workflows", "name"),
            {"anyOf": [_not_given("job_starts"), _given("global_job_id")]},
            {"anyOf": [_not_given("global_job_id"), _given("subjob")]},
        ]
    },
    {
        "allOf": [
            _given("role"),
            _not_given("workflow", "subjob", "global_job_id", "job_starts"),
            {
                "anyOf": [
                    {"properties": {"role": {"not": {"const": "submitter"}}}},
                    _given("name"),
                    _given("workflows"),
                ]
            },
        ]
    },
]
_REVOKE_FORMS = [
    {"allOf": [_given("id"), _not_given("workflow", "subjob")]},
    {"allOf": [_given("workflow"), _not_given("id")]},
]
#: Query parameter -> its schema.
QUERY: Mapping[str, Schema] = {
    "cursor": {"type": "string"},
    "id": {"type": "string", "minLength": 1},
    "workflow": {"type": "string", **NAME},
    "after": {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
    #: Larger ones count as the largest that is served.
    "limit": {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
}


def state_limits(schemas: dict[str, Schema]) -> None:
    """Add to the schemas of bodies and their parts what the commands check."""
    schemas["TokenBody"]["anyOf"] = _TOKEN_FORMS
    schemas["RevokeBody"]["anyOf"] = _REVOKE_FORMS
    schemas["Plan"]["anyOf"] = _PHASES_OR_PROFILE
    schemas["WorkflowBody"]["anyOf"] = _PLAN_AND_NO_PROFILE
    for name, schema in schemas.items():
        narrow(schema, {**(_COMMAND if name in _COMMANDS else {}), **_OF.get(name, {})})


def narrow(schema: Schema, limits: Mapping[str, Schema]) -> None:
    """Add to fields of an object, as far as it has them, what is true of each of their values."""
    for field, limit in limits.items():
        found = schema["properties"].get(field)
        if found is not None:
            # A field that may be null has the alternatives of its type and null.
            found.get("anyOf", [found])[0].update(limit)
