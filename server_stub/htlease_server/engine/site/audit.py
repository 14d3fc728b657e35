"""What is done to the site itself, as the audit keeps it; what happens to subjobs is in histories.

Kinds: `mint-token` (of tokens for more than one subjob; the others are in the log), `revoke-token`,
`rotate-key`, `put-workflow`, `put-maintenance`, `announce-maintenance`, `withdraw-maintenance`,
`put-flag`, `trim` (one for each step).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from htlease.wire.protocol import rfc3339
from htlease_server.store.base import AuditRow

MINT, REVOKE, ROTATE = "mint-token", "revoke-token", "rotate-key"
PUT_WORKFLOW, PUT_MAINTENANCE, PUT_FLAG = "put-workflow", "put-maintenance", "put-flag"
ANNOUNCE, WITHDRAW = "announce-maintenance", "withdraw-maintenance"

TRIM = "trim"

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class AuditEntry:
    """Something that somebody did; holds no secret."""

    kind: str
    workflow: str | None = None
    subjob: str | None = None
    token_id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    def row(self, now: float, actor: str, via: str | None) -> AuditRow:
        """Return the row to be stored."""
        data = _encode({name: value for name, value in self.data.items() if value is not None})
        return AuditRow(
            now,
            self.kind,
            actor,
            self.workflow,
            self.subjob,
            self.token_id,
            via,
            data.decode(),
        )


def audit_document(entry_id: int, row: AuditRow) -> dict[str, Any]:
    """Return an audit entry as `GET /v1/audit` shows it."""
    named = {
        name: value
        for name in ("workflow", "subjob", "token_id", "via")
        if (value := getattr(row, name)) is not None
    }
    data = msgspec.json.decode(row.data)
    if "issued_until" in data:
        data["issued_until"] = rfc3339(data["issued_until"])
    return {
        "id": entry_id,
        "at": rfc3339(row.at),
        "deed": row.kind,
        "actor": row.actor,
        **named,
        **data,
    }
