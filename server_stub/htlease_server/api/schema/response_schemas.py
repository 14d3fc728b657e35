"""What the server answers, in the words of JSON Schema, for the OpenAPI document.

Made from the types of documents, replies and events. All are closed: a client skips what it does
not know, but this server sends nothing that is not written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import msgspec

from htlease.rules import messages as m
from htlease.rules.plan import RESTARTS
from htlease.rules.state import CLOSED, OPEN
from htlease.wire.protocol import PHASE_CALLS, SUBJOB_CALLS
from htlease_server.api.schema import admin_models
from htlease_server.api.schema.schema_constraints import Schema, narrow
from htlease_server.engine.history import EVENT_NAMES, NEVER_SHOWN
from htlease_server.models import response_models

#: Call, as `routes` names it -> what is answered with status 200, where that is JSON.
ANSWERS: Mapping[str, type] = {
    "enroll": m.Enrolled,
    "acquire": m.Grant,
    "renew": m.Renewal,
    **dict.fromkeys(PHASE_CALLS, m.PhaseRecord),
    **dict.fromkeys(
        ("exited", "abandon", "ended", "observed", "commit", "settle", "cancel"), m.SubjobReply
    ),
    "subjob": response_models.SubjobDocument,
    "history": response_models.HistoryPage,
    "find": response_models.Subjobs,
    "workflows": response_models.Workflows,
    **dict.fromkeys(("workflow", "put-workflow"), response_models.WorkflowDocument),
    **dict.fromkeys(
        ("maintenance", "put-maintenance", "announce", "withdraw"), response_models.Maintenance
    ),
    "flags": response_models.Flags,
    "put-flag": response_models.FlagDocument,
    "mint": admin_models.NewToken,
    "tokens": admin_models.Tokens,
    "revoke": admin_models.Revocation,
    **dict.fromkeys(("keys", "rotate-key"), admin_models.SigningKeys),
    "audit": admin_models.Audit,
    "trim": admin_models.TrimStep,
    **dict.fromkeys(("healthz", "readyz"), admin_models.Health),
    "openapi": admin_models.OpenApi,
}
REF = "#/components/schemas/{name}"
_OUTCOME: Schema = {"enum": list(m.OUTCOMES)}
_STATUS: Schema = {"enum": [status.value for status in (*OPEN, *CLOSED)]}
_INSTANT: Schema = {"type": "string", **response_models.INSTANT_FORMAT}
#: What the types of replies and events leave open.
_OF: Mapping[str, Mapping[str, Schema]] = {
    "Renewal": {"order": {"enum": ["continue", "stop", "cancel"]}, "outcome": _OUTCOME},
    "SubjobReply": {"status": _STATUS, "outcome": _OUTCOME},
    "PhaseToRun": {"restart": {"enum": list(RESTARTS)}},
    "SubmissionEnrolled": {"reopened": _OUTCOME},
    "LeaseAcquired": {
        "kind": {"enum": list(m.KINDS)},
        "why": {"enum": list(response_models.WHY)},
        "ended_before": {"enum": ["expired", "superseded"]},
    },
    "AttemptRefused": {
        "code": {"enum": ["lease-still-live", "subjob-closed", "superseded-attempt"]}
    },
    "WriteRefused": {
        "code": {"enum": ["stale-fence", "superseded-attempt"]},
        "call": {"enum": [*SUBJOB_CALLS, *PHASE_CALLS]},
    },
    "SubjobClosed": {"outcome": _OUTCOME, "by": {"enum": list(response_models.CLOSED_BY)}},
}
#: The store has a renewal as a deadline only.
RECORDED = tuple(event for event in EVENT_NAMES if event is not m.LeaseRenewed)


def answer_schemas() -> dict[str, Schema]:
    """Return the components by name; those that requests have too, as `Plan`, are theirs."""
    schemas = _components(
        *ANSWERS.values(), *admin_models.DEEDS.values(), response_models.EventHead
    )
    # Replies are sent whole, with instants as text and now and then with a token.
    for reply in get_args(m.Reply):
        schema = schemas[reply.__name__]
        schema["required"] = list(schema["properties"])
    for name in ("entered_at", "completed_at", "failed_at"):
        schemas["PhaseRecord"]["properties"][name] = _or_null(_INSTANT)
    schemas["Renewal"]["properties"]["token"] = {
        "type": "string",
        "description": "A fresh one in place of a job's token that will not last much longer.",
    }
    head = schemas.pop("EventHead")
    events = _components(*RECORDED)
    for event in RECORDED:
        schemas[f"{event.__name__}Event"] = _event(event, head, events[event.__name__])
    for schema in schemas.values():
        schema["additionalProperties"] = False
    schemas["OpenApi"]["additionalProperties"] = True
    schemas["Event"] = _any_of(
        "event", {EVENT_NAMES[event]: f"{event.__name__}Event" for event in RECORDED}
    )
    schemas["Deed"] = _any_of(
        "deed", {kind: deed.__name__ for kind, deed in admin_models.DEEDS.items()}
    )
    return schemas


def _components(*types: type) -> dict[str, Schema]:
    _, schemas = msgspec.json.schema_components(dict.fromkeys(types), ref_template=REF)
    for name, schema in schemas.items():
        narrow(schema, _OF.get(name, {}))
    return schemas


def _event(event: type[m.Event], head: Schema, fields: Schema) -> Schema:
    """Return the schema of an event as `history.event_document` shows it."""
    shown = {name: of for name, of in fields["properties"].items() if name not in NEVER_SHOWN}
    if event is m.DetailsSaved:
        del shown["details"]
        shown |= {"details_bytes": {"type": "integer"}, "details_sha256": {"type": "string"}}
    if "deadline_at" in shown:
        shown["deadline_at"] = _INSTANT
    # What an older server has recorded has fewer of the fields that have a default.
    optional = set(fields["properties"]) - set(fields["required"])
    return {
        "title": fields["title"],
        "description": fields["description"],
        "type": "object",
        "properties": {**head["properties"], "event": {"const": EVENT_NAMES[event]}, **shown},
        "required": [*head["required"], "event", *(name for name in shown if name not in optional)],
    }


def _any_of(tag: str, components: Mapping[str, str]) -> Schema:
    """Return the schema of what is one of several, and says by a field which one it is."""
    refs = {value: REF.format(name=name) for value, name in components.items()}
    return {
        "type": "object",
        "required": [tag],
        "properties": {tag: {"enum": list(refs)}},
        "discriminator": {"propertyName": tag, "mapping": refs},
        "oneOf": [{"$ref": ref} for ref in refs.values()],
    }


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}
