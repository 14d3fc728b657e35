"""Workflows in the writer's memory, and what a PUT makes of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from htlease.rules import messages as m
from htlease.rules.plan import Plan
from htlease.wire.protocol import plan_from
from htlease_server.models.request_models import WorkflowBody
from htlease_server.store.base import WorkflowRow

_ROWS_MAX = 10_000
#: Of plans, labels and structures of the workflows in memory.
_ROWS_MAX_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class PutWorkflow:
    """A workflow as somebody wants it."""

    name: str
    body: WorkflowBody
    plan: Plan | None
    digest: bytes


class WorkflowBook:
    """Keeps the workflows looked up and makes new rows; changes nothing in the store itself."""

    def __init__(
        self, look_up: Callable[[str], WorkflowRow | None], new_id: Callable[[], int]
    ) -> None:
        self._look_up = look_up
        self._new_id = new_id
        self._rows: dict[str, WorkflowRow] = {}
        self._rows_bytes = 0

    def get(self, name: str) -> WorkflowRow | None:
        """Return a workflow, or None when there is no such."""
        row = self._rows.get(name)
        if row is None:
            row = self._look_up(name)
            if row is not None:
                self.keep(row)
        return row

    def keep(self, row: WorkflowRow) -> None:
        """Remember a row, until `forget`."""
        self.forget(row.name)
        self._rows_bytes += _size_of(row)
        if len(self._rows) >= _ROWS_MAX or self._rows_bytes > _ROWS_MAX_BYTES:
            self._rows.clear()
            self._rows_bytes = _size_of(row)
        self._rows[row.name] = row

    def forget(self, name: str) -> None:
        """Drop a row that the store has refused to keep."""
        row = self._rows.pop(name, None)
        if row is not None:
            self._rows_bytes -= _size_of(row)

    def new(self, name: str, now: float, made_by: str) -> WorkflowRow:
        """Return the row of a workflow that is only known by the name of its first subjob."""
        return WorkflowRow(self._new_id(), name, now, 0, "{}", None, None, None, None, made_by)

    def changed(self, put: PutWorkflow, now: float, owner: str) -> WorkflowRow | m.Rejection:
        """Return what a PUT makes of a workflow; the very row when it came before."""
        row = self.get(put.name)
        if row and row.request_id == put.body.request_id:
            if row.digest == put.digest:
                return row
            return m.Rejection("request-id-reused", "this request ID came before with another body")
        source: WorkflowRow | None = None
        if put.body.copy_of is not None:
            source = self.get(put.body.copy_of)
            if source is None:
                return m.Rejection(
                    "invalid", f"there is no workflow {put.body.copy_of}", field="copy_of"
                )
        row = row or self.new(put.name, now, owner)
        if source:
            row = row._replace(labels=source.labels, plan=source.plan, structure=source.structure)
        changes: dict[str, Any] = {"request_id": put.body.request_id, "digest": put.digest}
        if put.plan is not None:
            changes["plan"] = _json(put.plan)
        if put.body.labels is not None:
            changes["labels"] = _json(put.body.labels)
        if put.body.structure is not None:
            changes["structure"] = _json(put.body.structure)
        if put.body.template is not None:
            changes["template"] = int(put.body.template)
        return row._replace(**changes)


def plan_in(row: WorkflowRow) -> Plan | None:
    """Return the plan that a workflow gives to its subjobs."""
    return None if row.plan is None else plan_from(msgspec.json.decode(row.plan))


def _size_of(row: WorkflowRow) -> int:
    return len(row.labels) + len(row.plan or "") + len(row.structure or "")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
