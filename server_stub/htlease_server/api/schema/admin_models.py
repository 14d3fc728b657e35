"""The documents about the site itself: deeds, tokens, keys, trimming, health."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

import msgspec

from htlease_server.auth.roles import Role
from htlease_server.engine.site.audit import (
    ANNOUNCE,
    MINT,
    PUT_FLAG,
    PUT_MAINTENANCE,
    PUT_WORKFLOW,
    REVOKE,
    ROTATE,
    TRIM,
    WITHDRAW,
)
from htlease_server.models.response_models import Count, Instant, one_of


class DeedVia(TypedDict, total=False):
    """The relays through which somebody did it, where there were any."""

    via: str


class DeedHead(DeedVia):
    """What is known of every deed."""

    id: Count
    at: Instant
    actor: str


class MintScope(TypedDict, total=False):
    """Of a workflow's token the workflow, of a role's its workflows and who has it."""

    workflow: str
    workflows: list[str]
    name: str


class MintDeed(DeedHead, MintScope):
    """Somebody made a token for more than one subjob."""

    deed: Annotated[str, one_of(MINT)]
    token_id: str
    role: Annotated[str, one_of(*(role.value for role in Role))]
    expires_at: Instant


class RevokeScope(TypedDict, total=False):
    """Which tokens: one, or those of a workflow or subjob."""

    token_id: str
    workflow: str
    subjob: str
    reason: str


class RevokeDeed(DeedHead, RevokeScope):
    """Somebody revoked tokens; of a workflow's, those made up to that instant."""

    deed: Annotated[str, one_of(REVOKE)]
    issued_until: Instant


class RotateDeed(DeedHead):
    """Somebody made a new signing key."""

    deed: Annotated[str, one_of(ROTATE)]
    kid: str


class WorkflowDeed(DeedHead):
    """Somebody made or changed a workflow."""

    deed: Annotated[str, one_of(PUT_WORKFLOW)]
    workflow: str


class DeedReason(TypedDict, total=False):
    """Why, where somebody said so."""

    reason: str


class MaintenanceDeed(DeedHead, DeedReason):
    """Somebody began a maintenance window, moved its end, or ended it (0)."""

    deed: Annotated[str, one_of(PUT_MAINTENANCE)]
    ends_in_seconds: float


class AnnounceReplaces(TypedDict, total=False):
    """The begin of the announced window that it replaced, where it did."""

    instead_of: Instant


class AnnounceDeed(DeedHead, DeedReason, AnnounceReplaces):
    """Somebody announced a maintenance window, or moved one."""

    deed: Annotated[str, one_of(ANNOUNCE)]
    starts_at: Instant
    until_at: Instant


class WithdrawDeed(DeedHead):
    """Somebody withdrew an announced maintenance window."""

    deed: Annotated[str, one_of(WITHDRAW)]
    starts_at: Instant


class FlagDeed(DeedHead, DeedReason):
    """Somebody lowered or raised a flag."""

    deed: Annotated[str, one_of(PUT_FLAG)]
    flag: str
    is_up: bool


class TrimDeed(DeedHead):
    """Somebody let some of an old workflow go."""

    deed: Annotated[str, one_of(TRIM)]
    workflow: str
    subjobs: Count
    events: Count


DEEDS: Mapping[str, type] = {
    MINT: MintDeed,
    REVOKE: RevokeDeed,
    ROTATE: RotateDeed,
    PUT_WORKFLOW: WorkflowDeed,
    PUT_MAINTENANCE: MaintenanceDeed,
    ANNOUNCE: AnnounceDeed,
    WITHDRAW: WithdrawDeed,
    PUT_FLAG: FlagDeed,
    TRIM: TrimDeed,
}


class Audit(TypedDict):
    """Some of what was done to the site, in order; `next` is for `after`."""

    deeds: list[
        Annotated[
            dict[str, Any],
            msgspec.Meta(extra_json_schema={"$ref": "#/components/schemas/Deed"}),
        ]
    ]
    next: int | None


class MadeToken(MintDeed):
    """A token that was made for more than one subjob."""

    revoked: bool


class Tokens(TypedDict):
    """Some of the tokens, in order; `next` is for `after`."""

    tokens: list[MadeToken]
    next: int | None


class NewToken(TypedDict):
    """A token, for whoever asked."""

    token: str
    id: str
    expires_at: Instant


class Revocation(TypedDict):
    """Since when tokens are revoked."""

    revoked_at: Instant


class SigningKey(TypedDict):
    """A signing key; None is the ID of the first one, which has none."""

    kid: str | None
    signs: bool


class SigningKeys(TypedDict):
    """The signing keys, the one that signs first."""

    keys: list[SigningKey]


class TrimmedWorkflow(TypedDict):
    """A workflow that has lost subjobs, or would lose them, and how many."""

    workflow: str
    subjobs: Count


class TrimStep(TypedDict):
    """What a step of trimming came to; `next` is for `after`, and None at the end."""

    workflows: list[TrimmedWorkflow]
    next: int | None


class Health(TypedDict):
    """All is well; what is not is a problem."""

    status: Annotated[str, one_of("ok")]


class OpenApi(TypedDict):
    """A description in the words of OpenAPI 3.1."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]
