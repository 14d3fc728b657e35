"""Revoked tokens: by their IDs, or all that were made for a workflow up to an instant.

Kept in memory, from the audit in the store; `Watch` brings what other servers have revoked.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from htlease.wire.protocol import rfc3339
from htlease_server.auth.principal import Caller
from htlease_server.auth.roles import Role
from htlease_server.store.base import AuditRow

REVOKED = "the token was revoked; ask for a new one"


class Revocations:
    """What is revoked; replaced as a whole, so that others may look meanwhile."""

    def __init__(self, rows: Iterable[AuditRow] = ()) -> None:
        self._ids: frozenset[str] = frozenset()
        #: (workflow, subjob or None for all of it) -> the last instant of what is revoked.
        self._until: dict[tuple[str, str | None], float] = {}
        self.add(rows)

    def add(self, rows: Iterable[AuditRow]) -> bool:
        """Take note of revocations; tell whether one was not known."""
        ids, until = set(self._ids), dict(self._until)
        for row in rows:
            if row.token_id is not None:
                ids.add(row.token_id)
            elif row.workflow is not None:
                of = (row.workflow, row.subjob)
                # By the clock of the server that was told, as the times in tokens are.
                said_at = msgspec.json.decode(row.data)["issued_until"]
                until[of] = max(said_at, until.get(of, 0.0))
        is_new = ids != self._ids or until != self._until
        self._ids, self._until = frozenset(ids), until
        return is_new

    def covers(self, token_id: str, workflow: str | None, made_at: str) -> bool:
        """Tell whether a token that was made for a workflow, or a role, is revoked.

        `made_at` is RFC 3339 in UTC.
        """
        if token_id in self._ids:
            return True
        until = None if workflow is None else self._until.get((workflow, None))
        return until is not None and made_at <= rfc3339(until)

    def is_revoked(self, caller: Caller) -> bool:
        """Tell whether a caller's token, or one that it comes from, is revoked."""
        token_claims = caller.token_claims
        if token_claims is None:
            return False
        if not self._ids.isdisjoint((token_claims.id, token_claims.root_id, *token_claims.parents)):
            return True
        if caller.role not in (Role.JOB, Role.WORKFLOW) or not self._until:
            return False
        workflow = caller.workflows[0]
        scopes = {(workflow, None), (workflow, caller.subjob)}
        return any(token_claims.issued_at <= self._until.get(of, -1.0) for of in scopes)
