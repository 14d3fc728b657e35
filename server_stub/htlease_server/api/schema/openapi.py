"""The OpenAPI 3.1 document, made from the table of calls and the types of bodies and replies."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from htlease.rules import messages as m
from htlease.wire.protocol import PHASE_CALLS
from htlease_server.api.routes import ROUTES, Route
from htlease_server.api.schema.response_schemas import ANSWERS, REF, answer_schemas
from htlease_server.api.schema.schema_constraints import NAME, QUERY, state_limits
from htlease_server.auth.roles import OPEN_TO_ALL
from htlease_server.http.messages import Answer, document
from htlease_server.models.request_models import (
    READERS,
    AnnounceBody,
    FlagBody,
    MaintenanceBody,
    RevokeBody,
    RotateBody,
    TokenBody,
    TrimBody,
    WithdrawBody,
    WorkflowBody,
)

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
    "additionalProperties": False,
}
_BODIES: dict[str, type] = {
    **{call: reader.struct for call, reader in READERS.items()},
    "put-workflow": WorkflowBody,
    "mint": TokenBody,
    "revoke": RevokeBody,
    "rotate-key": RotateBody,
    "put-maintenance": MaintenanceBody,
    "announce": AnnounceBody,
    "withdraw": WithdrawBody,
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
_SAME_WORKFLOW = {"workflow": "$request.path.workflow"}
_SAME_SUBJOB = {"subjob": "$request.path.subjob"}
_LOOKS = ("subjob", "history")
#: Call -> the calls that go on from its answer.
_LINKS: Mapping[str, tuple[str, ...]] = {
    "put-workflow": ("workflow",),
    "enroll": ("acquire", *_LOOKS),
    "acquire": (*_BY_HOLDER, *_LOOKS),
}


@functools.cache
def openapi_answer() -> Answer:
    """Return the document as it is sent; to encode it takes longer than any other answer."""
    return document(openapi_document())


@functools.cache
def openapi_document() -> dict[str, Any]:
    """Return the document."""
    _, bodies = msgspec.json.schema_components(_BODIES.values(), ref_template=REF)
    state_limits(bodies)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "htlease", "version": _version()},
        "paths": paths,
        "components": {
            "schemas": {**answer_schemas(), **bodies, "Problem": _PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    answer = ANSWERS.get(route.name)
    schema = _ref(answer.__name__) if answer else {"type": "string"}
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
                "content": {("application/json" if answer else "text/plain"): {"schema": schema}},
            },
            "default": {
                "description": "Refused.",
                "content": {"application/problem+json": {"schema": _ref("Problem")}},
            },
        },
    }
    if route.name in _LINKS:
        operation["responses"]["200"]["links"] = {
            call: _link(route.name, call) for call in _LINKS[route.name]
        }
    if route.name in _BODIES:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _ref(_BODIES[route.name].__name__)}},
        }
    return operation


def _ref(component: str) -> dict[str, str]:
    return {"$ref": REF.format(name=component)}


def _link(source: str, call: str) -> dict[str, Any]:
    link: dict[str, Any] = {"operationId": call, "parameters": dict(_SAME_WORKFLOW)}
    if call != "workflow":
        link["parameters"] |= _SAME_SUBJOB
    if call in PHASE_CALLS:
        link["parameters"]["phase"] = "$response.body#/phase"
    if source == "acquire" and call in _BY_HOLDER:
        link["requestBody"] = _OF_GRANT
    return link


def _version() -> str:
    try:
        return version("htlease")
    except PackageNotFoundError:  # run from a source tree
        return "0"
