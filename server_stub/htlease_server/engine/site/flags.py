"""Flags: what a PUT makes of one, which of them concern a workflow, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from htlease.rules.flags import GROUP_SEPARATOR, Flag
from htlease.wire.protocol import rfc3339
from htlease_server.models.response_models import FlagDocument
from htlease_server.store.base import FlagRow, WorkflowRow

#: The label that says to which group (experiment, VO) a workflow belongs.
GROUP_LABEL = "group"


@dataclass(frozen=True)
class PutFlag:
    """A flag as somebody wants it."""

    name: str
    is_up: bool
    reason: str | None = None

    def row(self, now: float, actor: str) -> FlagRow:
        """Return the flag from now on."""
        return FlagRow(self.name, int(self.is_up), self.reason, actor, now)


def concerning(rows: Iterable[FlagRow], workflow: WorkflowRow | None) -> list[FlagRow]:
    """Return the flags for everybody, and those for the workflow's own group (`NAME@GROUP`)."""
    labels = msgspec.json.decode(workflow.labels) if workflow is not None else {}
    group = labels.get(GROUP_LABEL)
    return [
        row
        for row in rows
        if GROUP_SEPARATOR not in row.name or row.name.rpartition(GROUP_SEPARATOR)[2] == group
    ]


def down_for(rows: Mapping[str, FlagRow], workflow: WorkflowRow | None) -> dict[str, Flag]:
    """Return the flags that are down for a workflow, by the names that plans use."""
    lowered = [row for row in rows.values() if not row.is_up]
    if not lowered:
        return {}
    return {
        row.name.partition(GROUP_SEPARATOR)[0]: Flag(row.name, row.reason)
        for row in concerning(lowered, workflow)
    }


def flag_document(row: FlagRow) -> FlagDocument:
    """Return a flag as it is shown."""
    return {
        "name": row.name,
        "is_up": bool(row.is_up),
        "reason": row.reason,
        "actor": row.actor,
        "changed_at": rfc3339(row.changed_at),
    }
