"""Request bodies, read into commands.

The body of each call is a msgspec Struct made from the fields of its command, so that one
definition gives the decoding, the refusal of unknown fields by name, and the OpenAPI document.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import functools
import hashlib
import re
import types
import typing
from typing import Annotated, Any

import msgspec

from htlease.errors import InvalidField
from htlease.rules import messages as m
from htlease.rules.attempt import Evidence, Place, check_name
from htlease.rules.plan import Plan
from htlease.rules.profiles import plan_of
from htlease.wire.protocol import PHASE_CALLS, REQUEST_ID_MAX_CHARS, SUBJOB_CALLS, plan_from
from htlease_server.auth.job_tokens import TTL_MAX_SECONDS, TokenRequest
from htlease_server.auth.principal import PATTERNS_MAX, Binding, check_pattern
from htlease_server.auth.roles import Role, role_named

#: What every JSON reader can hold exactly, and any store.
_Integer = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
RequestId = Annotated[str, msgspec.Meta(min_length=1, max_length=REQUEST_ID_MAX_CHARS)]
ClientAt = Annotated[str, msgspec.Meta(max_length=64)]
LABELS_MAX = 100
#: Of a workflow's structure, which can be any JSON.
DEPTH_MAX = 100
_Label = Annotated[str, msgspec.Meta(max_length=m.LABEL_MAX_CHARS)]


def _wire_type(hint: Any) -> Any:
    """Return the type of a field on the wire: dataclasses become structs, integers are bounded."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return struct_of(hint)
    if hint is int:
        return _Integer
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return typing.Union[tuple(_wire_type(arg) for arg in args)]  # noqa: UP007
    if origin is collections.abc.Mapping:
        return dict.__class_getitem__(args)
    if origin is tuple:
        return tuple.__class_getitem__((_wire_type(args[0]), ...))
    return hint


def _fields_of(cls: type, without: str | None = None) -> list[Any]:
    """Return a dataclass's fields for msgspec.defstruct; what has a default may be absent."""
    hints = typing.get_type_hints(cls)
    found: list[Any] = []
    for field in dataclasses.fields(cls):
        if field.name == without:
            continue
        hint = _wire_type(hints[field.name])
        if cls is Plan and field.name == "phases":
            found.append((field.name, hint, ()))  # a profile brings its own
        elif field.default_factory is not dataclasses.MISSING:
            found.append((field.name, hint | None, None))
        elif field.default is not dataclasses.MISSING:
            found.append((field.name, hint, field.default))
        else:
            found.append((field.name, hint))
    return found


@functools.cache
def struct_of(cls: type) -> type[msgspec.Struct]:
    """Return the struct of a dataclass that is a part of a body."""
    return msgspec.defstruct(
        cls.__name__, _fields_of(cls), kw_only=True, forbid_unknown_fields=True
    )


class CommandRequest(typing.NamedTuple):
    """A command as it was sent."""

    command: m.Command
    request_id: str
    client_at: str | None
    #: Of call and body, whatever their spelling; `client_at` is data and no part of it.
    digest: bytes


class BodyReader:
    """Reads the bodies of one call."""

    def __init__(self, call: str, command: type[m.Command]) -> None:
        self._command = command
        self._salt = call.encode()
        path_field = "phase" if call in PHASE_CALLS else None
        fields = _fields_of(command, without=path_field)
        self._names = tuple(field[0] for field in fields)
        self._parts = [(name, part) for name, part in _PARTS.items() if name in self._names]
        self.struct = msgspec.defstruct(
            f"{command.__name__}Body",
            [*fields, ("request_id", RequestId), ("client_at", ClientAt | None, None)],
            kw_only=True,
            forbid_unknown_fields=True,
        )
        self._decoder = msgspec.json.Decoder(self.struct)

    def read(self, body: bytes, phase: str | None = None) -> CommandRequest:
        """Read a body; raises InvalidField naming the field that cannot be used."""
        sent: Any = decode(self._decoder, body)
        values = {
            name: value
            for name in self._names
            # None only stands for what is absent: every other default is None itself.
            if (value := getattr(sent, name)) is not None
        }
        for name, part in self._parts:
            if name in values:
                values[name] = part(values[name])
        if phase is not None:
            values["phase"] = check_name("phase", phase)
        command = self._command(**values)
        if self._command is m.Renew and "details" not in values:
            return CommandRequest(
                command, sent.request_id, sent.client_at, b""
            )  # looked at by nobody
        client_at, sent.client_at = sent.client_at, None
        digest = hashlib.blake2b(self._salt, digest_size=16)
        digest.update((phase or "").encode())
        digest.update(_msgpack.encode(sent))
        return CommandRequest(command, sent.request_id, client_at, digest.digest())


def _read_plan(body: msgspec.Struct) -> Plan:
    return plan_from(msgspec.to_builtins(body))


#: Fields that are themselves objects, and how each becomes what the command holds.
_PARTS = {
    "evidence": lambda body: Evidence(**msgspec.structs.asdict(body)),
    "place": lambda body: Place(**msgspec.structs.asdict(body)),
    "plan": _read_plan,
}
_msgpack = msgspec.msgpack.Encoder()

READERS = {
    call: BodyReader(call, command)
    for calls in (SUBJOB_CALLS, PHASE_CALLS)
    for call, command in calls.items()
}

_AT = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
_NAMED = re.compile(r"(?:unknown|required) field `([^`]*)`")


def decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """Decode a JSON body; raises InvalidField naming the field and what is wrong with it."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as problem:
        text = str(problem)
        at, named = _AT.search(text), _NAMED.search(text)
        place = [found[1] for found in (at, named) if found and found[1]]
        if named:
            what = "is not a field of this call" if "unknown" in text else "is missing"
        else:
            what = _AT.sub("", text)
        raise InvalidField(".".join(place) or "body", what) from None
    except RecursionError:
        raise InvalidField("body", "is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise InvalidField("body", f"is not JSON: {problem}") from None


class WorkflowBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a workflow is; parts that are absent stay as they are."""

    request_id: RequestId
    client_at: ClientAt | None = None
    plan: struct_of(Plan) | None = None  # type: ignore[valid-type]
    #: `PROFILE` or `PROFILE:FLOW` instead of a plan.
    profile: str | None = None
    labels: Annotated[dict[_Label, _Label], msgspec.Meta(max_length=LABELS_MAX)] | None = None
    #: What the caller wants to keep of the workflow's shape, e.g. a DAG; any JSON.
    structure: Any = None
    #: May be copied and not run.
    template: bool | None = None
    #: Take plan, labels and structure of this workflow where this body has none.
    copy_of: str | None = None

    def check_structure(self) -> None:
        """Raise InvalidField for a structure so deep that it could not be shown again."""
        level = [self.structure]
        for _ in range(DEPTH_MAX):
            level = [
                inner
                for value in level
                if isinstance(value, (list, dict))
                for inner in (value.values() if isinstance(value, dict) else value)
            ]
            if not level:
                return
        raise InvalidField("structure", f"is nested more than {DEPTH_MAX} deep")

    def plan_wanted(self) -> Plan | None:
        """Return the plan that the body names; raises InvalidField."""
        if self.plan is not None and self.profile is not None:
            raise InvalidField("profile", "stands beside a plan; give one of the two")
        if self.profile is not None:
            return plan_of(self.profile)
        return None if self.plan is None else _read_plan(self.plan)


class TokenBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a token shall be good for."""

    #: Of a job token, or one for all of a workflow.
    workflow: str | None = None
    #: Absent: every subjob of the workflow.
    subjob: str | None = None
    #: The one submission that a job token is for, `SCHEDD#CLUSTER.*` for all jobs of a cluster, and
    #: the one start of it, counted from 1.
    global_job_id: Annotated[str, msgspec.Meta(min_length=1, max_length=400)] | None = None
    job_starts: Annotated[int, msgspec.Meta(ge=1, le=2**53)] | None = None
    #: `operator`, `submitter` or `reader`, of these workflows; `*` at the end takes in all that
    #: begin so. `job`: that of any job of the workflow that is named, where their number is not
    #: known before.
    role: str | None = None
    workflows: Annotated[list[str], msgspec.Meta(max_length=PATTERNS_MAX)] | None = None
    #: Who a submitter is: what is made with the token belongs to them.
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] | None = None
    ttl_seconds: float = 86400.0

    def wanted(self) -> TokenRequest:
        """Return the token that the body names; raises InvalidField."""
        if not 1 <= self.ttl_seconds <= TTL_MAX_SECONDS:
            raise InvalidField(
                "ttl_seconds", f"{self.ttl_seconds:.12g} is not 1 to {TTL_MAX_SECONDS:.12g} seconds"
            )
        if self.role is not None:
            role = role_named(self.role)
            if role is Role.JOB and self.workflow is not None:
                return self._of_any_job(self.workflow)
            return self._of_role(role)
        if self.workflow is None:
            raise InvalidField("workflow", "is missing; name one, or a role")
        for field in ("workflows", "name"):
            if getattr(self, field) is not None:
                raise InvalidField(field, "is for a token of a role; give role too")
        check_name("workflow", self.workflow)
        if self.subjob is not None:
            check_name("subjob", self.subjob)
        role = Role.WORKFLOW if self.subjob is None else Role.JOB
        return TokenRequest(
            role, (self.workflow,), self.ttl_seconds, self.subjob, binding=self._binding()
        )

    def _of_any_job(self, workflow: str) -> TokenRequest:
        for field in ("subjob", "job_starts", "workflows", "name"):
            if getattr(self, field) is not None:
                raise InvalidField(field, "narrows a token for any job; leave it or the role out")
        binding = None if self.global_job_id is None else Binding(self.global_job_id)
        workflows = (check_name("workflow", workflow),)
        return TokenRequest(Role.JOB, workflows, self.ttl_seconds, binding=binding)

    def _of_role(self, role: Role) -> TokenRequest:
        for field in ("workflow", "subjob", "global_job_id", "job_starts"):
            if getattr(self, field) is not None:
                raise InvalidField(field, "is for a job's token; leave it or the role out")
        if role in (Role.JOB, Role.WORKFLOW):
            raise InvalidField("role", f"a {role.value} token is made by naming its workflow alone")
        if self.name is not None:
            check_name("name", self.name)
        if role is Role.SUBMITTER and self.name is None and self.workflows is None:
            raise InvalidField("name", "is missing; name the submitter, or workflows")
        patterns = ["*"] if self.workflows is None else self.workflows
        if role is Role.SUBMITTER and self.workflows is None:
            patterns = []
        return TokenRequest(
            role, tuple(map(check_pattern, patterns)), self.ttl_seconds, name=self.name
        )

    def _binding(self) -> Binding | None:
        if self.global_job_id is None:
            if self.job_starts is not None:
                raise InvalidField("job_starts", "is of a job; give global_job_id too")
            return None
        if self.subjob is None:
            raise InvalidField("global_job_id", "is for the token of a subjob; give subjob too")
        return Binding(self.global_job_id, self.job_starts)


class RevokeBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which tokens to revoke: one by its ID, or all made so far for a workflow."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=300)] | None = None
    workflow: str | None = None
    #: Those of one subjob only.
    subjob: str | None = None
    reason: Annotated[str, msgspec.Meta(max_length=400)] | None = None

    def check(self) -> None:
        """Raise InvalidField unless it says which tokens."""
        if (self.id is None) == (self.workflow is None):
            raise InvalidField("id", "give the ID of a token, or a workflow, and not both")
        if self.workflow is not None:
            check_name("workflow", self.workflow)
        if self.subjob is not None:
            if self.workflow is None:
                raise InvalidField("subjob", "is of a workflow; give workflow too")
            check_name("subjob", self.subjob)


class RotateBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Nothing: there is one way to make a new key."""


class MaintenanceBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Until when, from now on, no lease shall run out; 0 ends the window that is open."""

    ends_in_seconds: float
    reason: Annotated[str, msgspec.Meta(max_length=400)] | None = None


_Moment = Annotated[datetime.datetime, msgspec.Meta(tz=True)]


class AnnounceBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """From when until when no lease shall run out; both count to the whole second."""

    starts_at: _Moment
    until_at: _Moment
    reason: Annotated[str, msgspec.Meta(max_length=400)] | None = None
    #: The begin of an announced window that this one replaces.
    instead_of: _Moment | None = None


class WithdrawBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The begin of an announced window that shall not be."""

    starts_at: _Moment


class FlagBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Whether phases that need it may be entered."""

    is_up: bool
    reason: Annotated[str, msgspec.Meta(max_length=400)] | None = None


FLAG_DECODER = msgspec.json.Decoder(FlagBody)
MAINTENANCE_DECODER = msgspec.json.Decoder(MaintenanceBody)
ANNOUNCE_DECODER = msgspec.json.Decoder(AnnounceBody)
WITHDRAW_DECODER = msgspec.json.Decoder(WithdrawBody)
WORKFLOW_DECODER = msgspec.json.Decoder(WorkflowBody)
TOKEN_DECODER = msgspec.json.Decoder(TokenBody)


class TrimBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A step of letting workflows go that have been closed for so long."""

    older_than_seconds: float
    #: Where to go on: `next` of the step before.
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    #: Delete nothing, and tell of a page of workflows.
    dry_run: bool = False


TRIM_DECODER = msgspec.json.Decoder(TrimBody)
REVOKE_DECODER = msgspec.json.Decoder(RevokeBody)
ROTATE_DECODER = msgspec.json.Decoder(RotateBody)
