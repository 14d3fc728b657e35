"""The calls about tokens, keys and the audit."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from htlease.errors import BadConfig, InvalidField
from htlease.rules import messages as m
from htlease.wire.protocol import rfc3339
from htlease_server.api.queries import LIMIT_MAX, Queries
from htlease_server.api.request_context import RequestContext
from htlease_server.api.subjobs import Commands, note_minted
from htlease_server.auth.authenticator import Authenticator
from htlease_server.auth.job_tokens import TokenRequest, why_not_mint
from htlease_server.auth.principal import Caller
from htlease_server.auth.roles import Role
from htlease_server.auth.signing_keys import KeyFiles
from htlease_server.engine.site.audit import MINT, REVOKE, ROTATE, AuditEntry
from htlease_server.engine.site.retention import AGE_MAX_SECONDS, AGE_MIN_SECONDS, Trim, Trimmed
from htlease_server.http.messages import Answer, Refusal, document, problem
from htlease_server.logs import note
from htlease_server.models.request_models import (
    REVOKE_DECODER,
    ROTATE_DECODER,
    TOKEN_DECODER,
    TRIM_DECODER,
    decode,
)
from htlease_server.store.base import AuditRow


class TokensKeysAudit:
    """Makes, lists and revokes tokens, rotates keys, and shows what was done."""

    def __init__(self, authenticator: Authenticator, commands: Commands, queries: Queries) -> None:
        self._authenticator = authenticator
        self._commands = commands
        self._queries = queries

    def handlers(self) -> Mapping[str, Callable[[RequestContext], Awaitable[Answer]]]:
        """Return what answers each of the calls."""
        return {
            "mint": self._mint,
            "tokens": self._tokens,
            "revoke": self._revoke,
            "keys": self._keys,
            "rotate-key": self._rotate,
            "audit": self._audit,
            "trim": self._trim,
        }

    async def _mint(self, call: RequestContext) -> Answer:
        caller = call.caller
        wanted = decode(TOKEN_DECODER, call.request.body).wanted()
        forbidden = why_not_mint(caller, wanted)
        if forbidden and not await self._is_for_own(caller, wanted):
            raise Refusal("forbidden", forbidden)
        minted = self._authenticator.tokens.mint(wanted, caller)
        ends = rfc3339(minted.expires_at)
        if wanted.role is not Role.JOB:
            is_of_workflow = wanted.role is Role.WORKFLOW
            audit_entry = AuditEntry(
                MINT,
                wanted.workflows[0] if is_of_workflow else None,
                token_id=minted.id,
                data={
                    "role": wanted.role.value,
                    "workflows": None if is_of_workflow else wanted.workflows,
                    "name": wanted.name,
                    "expires_at": ends,
                },
            )
            outcome = await self._commands.put(audit_entry, caller, call.via)
            if isinstance(outcome, m.Rejection):
                return problem(outcome)
        note_minted(minted, caller, wanted.about)
        return document({"token": minted.text, "id": minted.id, "expires_at": ends})

    async def _is_for_own(self, caller: Caller, wanted: TokenRequest) -> bool:
        """Tell whether a token is for one workflow that is there and belongs to the caller."""
        if not caller.may_own or wanted.role not in (Role.JOB, Role.WORKFLOW):
            return False
        return await self._queries.made_by(wanted.workflows[0]) == caller.owner

    async def _revoke(self, call: RequestContext) -> Answer:
        body = decode(REVOKE_DECODER, call.request.body)
        body.check()
        audit_entry = AuditEntry(
            REVOKE,
            body.workflow,
            body.subjob,
            body.id,
            {"reason": body.reason, "issued_until": self._authenticator.now()},
        )
        outcome = await self._commands.put(audit_entry, call.caller, call.via)
        if isinstance(outcome, m.Rejection):
            return problem(outcome)
        assert isinstance(outcome, AuditRow)
        self._authenticator.revoke([outcome])
        note(
            logging.WARNING,
            "tokens revoked",
            token_id=body.id,
            workflow=body.workflow,
            subjob=body.subjob,
            actor=call.caller.actor,
            reason=body.reason,
        )
        return document({"revoked_at": rfc3339(outcome.at)})

    async def _trim(self, call: RequestContext) -> Answer:
        body = decode(TRIM_DECODER, call.request.body)
        if not AGE_MIN_SECONDS <= body.older_than_seconds <= AGE_MAX_SECONDS:
            raise InvalidField(
                "older_than_seconds", f"is not {AGE_MIN_SECONDS:.12g} to {AGE_MAX_SECONDS:.12g}"
            )
        before = self._authenticator.now() - body.older_than_seconds
        limit = LIMIT_MAX if body.dry_run else 1
        found = await self._queries.closed_workflows(before, body.after, limit)
        last = found[-1][0] if found else None
        if body.dry_run or not found:
            listed = [{"workflow": name, "subjobs": count} for _, name, count in found]
            return document({"workflows": listed, "next": last if len(found) == limit else None})
        workflow_id, name, _ = found[0]
        trim = Trim(workflow_id, name, before)
        outcome = await self._commands.put(trim, call.caller, call.via)
        if isinstance(outcome, m.Rejection):
            return problem(outcome)
        assert isinstance(outcome, Trimmed)
        return document(
            {
                "workflows": [{"workflow": name, "subjobs": outcome.subjobs}],
                "next": workflow_id if outcome.is_done else workflow_id - 1,
            }
        )

    async def _tokens(self, call: RequestContext) -> Answer:
        found = await self._queries.audit_entries(MINT, call.number("after", 0), call.limit)
        is_revoked = self._authenticator.revocations.covers
        tokens = [
            {**made, "revoked": is_revoked(made["token_id"], made.get("workflow"), made["at"])}
            for made in found["deeds"]
        ]
        return document({"tokens": tokens, "next": found["next"]})

    async def _audit(self, call: RequestContext) -> Answer:
        return document(
            await self._queries.audit_entries(None, call.number("after", 0), call.limit)
        )

    async def _keys(self, call: RequestContext) -> Answer:
        return document({"keys": self._authenticator.tokens.keys.document()})

    async def _rotate(self, call: RequestContext) -> Answer:
        decode(ROTATE_DECODER, call.request.body)
        keys = self._authenticator.tokens.keys
        if not isinstance(keys, KeyFiles):
            raise Refusal("invalid", "this server runs without authentication and keeps no keys")
        try:
            key_id = keys.rotate(self._authenticator.now())
        except BadConfig as why:
            raise Refusal("overloaded", str(why)) from None
        outcome = await self._commands.put(
            AuditEntry(ROTATE, data={"kid": key_id}), call.caller, call.via
        )
        if isinstance(outcome, m.Rejection):
            return problem(outcome)
        note(logging.WARNING, "signing key rotated", kid=key_id, actor=call.caller.actor)
        return await self._keys(call)
