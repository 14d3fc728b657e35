"""What is kept of a transfer on the lease server: the details of the subjob's one phase.

The record outlives watchers, submissions of the node and the DAG itself. It is written before a
submit call (intent) and after it (external ID), always under the lease.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from htlease.rules.attempt import SubjobKey
from htlease.rules.plan import PhaseSpec, Plan
from htlease_dagman.staging.transfer import Transfer

PHASE = "transfer"
#: `once`: what was moved stays moved, so the subjob closes with this phase.
PLAN = Plan((PhaseSpec(PHASE, "once"),))
#: Texts of services are cut: details hold 64 KiB and are saved again at every change.
TEXT_MAX_CHARS = 500


@dataclass(frozen=True)
class TransferRecord:
    """One transfer: which task does it and how far that got."""

    #: Counts the tasks made for this transfer; a failed one is followed by the next.
    generation: int = 1
    #: Idempotency key of this generation's task; None for an adopted task.
    key: str | None = None
    #: What the back-end wanted on record before its submit call.
    reservation: str | None = None
    #: A submit call may have been made: without an ID the task has to be looked up first.
    is_asked: bool = False
    external_id: str | None = None
    #: A person named the task: it is watched, and left alone otherwise.
    is_adopted: bool = False
    #: An adopted task may be cancelled like one of ours.
    is_owned: bool = False
    state: str = "new"
    #: What a person has to do now; None when nothing.
    action: str | None = None
    #: The action of which somebody has been told.
    noticed: str | None = None
    text: str = ""
    counts: Mapping[str, str] = field(default_factory=dict)
    #: Looks that got no answer or an unclear one, since the task was submitted.
    poll_errors: int = 0
    #: Looks in a row at which the service did not know the task.
    unknown_looks: int = 0
    #: Tasks before this one, as `ID: how it ended`.
    past: tuple[str, ...] = ()

    def with_(self, **changes: Any) -> TransferRecord:
        """Return a copy with some fields changed; texts are cut to their limit."""
        for name in ("text", "action", "noticed"):
            if changes.get(name):
                changes[name] = changes[name][:TEXT_MAX_CHARS]
        return dataclasses.replace(self, **changes)

    def next_generation(self, why: str) -> TransferRecord:
        """Return the record of a task that is to follow this one."""
        ended = f"{self.external_id or 'not submitted'}: {why}"[:TEXT_MAX_CHARS]
        return TransferRecord(
            self.generation + 1, noticed=self.noticed, past=(*self.past, ended)[-20:]
        )

    def to_text(self) -> str:
        """Return the JSON that is saved; fields at their default are left out."""
        changed = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name in ("generation", "state") or getattr(self, f.name) != _default(f)
        }
        return json.dumps(changed, separators=(",", ":"))


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default if f.default is not dataclasses.MISSING else {}


def read_record(text: str | None) -> TransferRecord:
    """Read saved details; what a later version has added is ignored. No details: a new record."""
    if not text:
        return TransferRecord()
    saved = json.loads(text)
    known = {f.name for f in dataclasses.fields(TransferRecord)}
    saved = {name: value for name, value in saved.items() if name in known}
    return TransferRecord(**{**saved, "past": tuple(saved.get("past", ()))})


def key_of(subjob: SubjobKey, generation: int, transfer: Transfer) -> str:
    """Return the idempotency key of a task.

    It follows from what is transferred and for whom, and from nothing that a resubmission changes,
    so that any later watcher computes it again.
    """
    what = json.dumps(
        [
            str(subjob),
            generation,
            dataclasses.astuple(transfer.source),
            dataclasses.astuple(transfer.destination),
            [dataclasses.astuple(item) for item in transfer.items],
        ]
    )
    return f"htlease-{hashlib.sha256(what.encode()).hexdigest()[:32]}"
