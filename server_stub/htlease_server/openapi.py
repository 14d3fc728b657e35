"""The OpenAPI 3.1 document, made from the table of calls and the types of bodies and replies."""

from __future__ import annotations

import functools
import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from htlease import messages as m
from htlease.protocol import PHASE_CALLS
from htlease_server.bodies import (
    READERS,
    FlagBody,
    MaintenanceBody,
    RevokeBody,
    RotateBody,
    TokenBody,
    TrimBody,
    WorkflowBody,
)
from htlease_server.limits import NAME, QUERY, state_limits
from htlease_server.roles import OPEN_TO_ALL
from htlease_server.routes import ROUTES, Route

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457; act on `code`, never on text.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"enum": sorted(m.STATUS_OF_CODE)},
        "detail": {"type": "string"},
        "subjob": {"type": "string"},
        "retry_after_seconds": {"type": "number"},
        "outcome": {"enum": list(m.OUTCOMES)},
        "field": {"type": "string"},
        "flag": {"type": "string"},
    },
}
_REPLIES: dict[str, type] = {
    "enroll": m.Enrolled,
    "acquire": m.Grant,
    "renew": m.Renewal,
    "enter": m.PhaseRecord,
    "complete": m.PhaseRecord,
    "fail": m.PhaseRecord,
    "exited": m.SubjobReply,
    "abandon": m.SubjobReply,
    "ended": m.SubjobReply,
    "observed": m.SubjobReply,
    "commit": m.SubjobReply,
    "settle": m.SubjobReply,
    "cancel": m.SubjobReply,
}
_BODIES: dict[str, type] = {
    **{call: reader.struct for call, reader in READERS.items()},
    "put-workflow": WorkflowBody,
    "mint": TokenBody,
    "revoke": RevokeBody,
    "rotate-key": RotateBody,
    "put-maintenance": MaintenanceBody,
    "put-flag": FlagBody,
    "trim": TrimBody,
}
_QUERIES = {
    "workflows": ("cursor", "limit"),
    "workflow": ("cursor", "limit"),
    "history": ("after", "limit"),
    "find": ("id",),
    "flags": ("workflow",),
    "tokens": ("after", "limit"),
    "audit": ("after", "limit"),
}


#: What a holder does with its grant, and what each of these calls takes of it.
_BY_HOLDER = ("renew", "enter", "complete", "fail", "exited", "abandon", "commit", "settle")
_OF_GRANT = {"fence": "$response.body#/fence", "nonce": "$request.body#/nonce"}
_SAME_SUBJOB = {"workflow": "$request.path.workflow", "subjob": "$request.path.subjob"}


@functools.cache
def openapi_document() -> dict[str, Any]:
    """Return the document."""
    types = list(dict.fromkeys([*_BODIES.values(), *_REPLIES.values()]))
    refs, schemas = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    schemas["Renewal"]["properties"]["token"] = {
        "type": "string",
        "description": "A fresh one in place of a job's token that will not last much longer.",
    }
    # Instants are numbers inside the server and RFC 3339 text outside.
    for name in ("entered_at", "completed_at", "failed_at"):
        instant = {"type": ["string", "null"], "format": "date-time"}
        schemas["PhaseRecord"]["properties"][name] = instant
    state_limits(schemas)
    ref_of = dict(zip(types, refs, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, ref_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "htlease", "version": _version()},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, ref_of: dict[type, dict[str, Any]]) -> dict[str, Any]:
    is_text = route.name in ("metrics", "home")
    reply = _REPLIES.get(route.name)
    schema = ref_of[reply] if reply else {"type": "string" if is_text else "object"}
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary.splitlines()[0],
        "security": [] if route.name in OPEN_TO_ALL else [{"bearer": []}],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", **NAME}}
            for name in re.findall(r"{(\w+)}", route.template)
        ]
        + [
            {"name": name, "in": "query", "required": name == "id", "schema": QUERY[name]}
            for name in _QUERIES.get(route.name, ())
        ],
        "responses": {
            "200": {
                "description": "Done.",
                "content": {("text/plain" if is_text else "application/json"): {"schema": schema}},
            },
            "default": {
                "description": "Refused.",
                "content": {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                },
            },
        },
    }
    if route.name == "acquire":
        operation["responses"]["200"]["links"] = {call: _link(call) for call in _BY_HOLDER}
    if route.name in _BODIES:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": ref_of[_BODIES[route.name]]}},
        }
    return operation


def _link(call: str) -> dict[str, Any]:
    phase = {"phase": "$response.body#/phase"} if call in PHASE_CALLS else {}
    return {
        "operationId": call,
        "parameters": {**_SAME_SUBJOB, **phase},
        "requestBody": _OF_GRANT,
    }


def _version() -> str:
    try:
        return version("htlease")
    except PackageNotFoundError:  # run from a source tree
        return "0"
