"""Requests that wait for the writer, and what one batch of them has done so far."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Protocol, Union

from htlease.errors import HTLeaseError
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.state import REQUESTS_KEPT, SubjobState
from htlease_server.engine.site.audit import AuditEntry
from htlease_server.engine.site.flags import PutFlag
from htlease_server.engine.site.maintenance import WindowChange
from htlease_server.engine.site.retention import Trim, Trimmed
from htlease_server.engine.site.workflows import PutWorkflow
from htlease_server.engine.states.cache import Entry, SubjobCache
from htlease_server.models.request_models import CommandRequest
from htlease_server.store.base import AuditRow, FlagRow, MaintenanceRow, WorkflowRow, WriteSet


class QueueFull(HTLeaseError):
    """More requests are waiting than the server takes; come again in a moment."""


@dataclass(frozen=True)
class Crashed:
    """Deciding raised an exception; it has been logged, and nothing was changed."""


Answer = Union[  # noqa: UP007
    m.Reply, m.Rejection, WorkflowRow, MaintenanceRow, FlagRow, AuditRow, Trimmed, Crashed
]


class Promise(Protocol):
    """Where an answer goes; an asyncio.Future is one."""

    def done(self) -> bool:
        """Tell whether the answer is there, or wanted no more."""

    def set_result(self, result: Answer, /) -> None:
        """Give the answer; in the event loop."""


class PendingRequest:
    """One request in the queue: a command for a subjob, or the PUT of something wider."""

    __slots__ = ("actor", "future", "is_own_only", "key", "owner", "sent", "via")

    def __init__(
        self,
        key: SubjobKey | None,
        sent: CommandRequest | PutWorkflow | WindowChange | PutFlag | AuditEntry | Trim,
        actor: str,
        future: Promise,
        via: str | None = None,
        owner: str = "admin",
        is_own_only: bool = False,
    ) -> None:
        #: To whom belongs a workflow that this makes.
        self.owner = owner
        #: It is for a workflow that belongs to the owner, or is new, and for no other.
        self.is_own_only = is_own_only
        self.via = via
        self.key = key
        self.sent = sent
        self.actor = actor
        self.future = future


@dataclass
class Batch:
    """What one batch has done so far."""

    now: float
    #: The server stops after it.
    is_last: bool = False
    #: Nothing may be told before the commit, not even what promises nothing new of the disk.
    is_all_after_commit: bool = False
    write_set: WriteSet = field(default_factory=WriteSet)
    #: Key -> entry, and its state and seq as they are on the disk (None: not there yet).
    changed: dict[SubjobKey, tuple[Entry, SubjobState | None, int]] = field(default_factory=dict)
    #: Subjobs that this batch deletes.
    deleting: set[SubjobKey] = field(default_factory=set)
    #: The requests of subjobs that accepted some in this batch.
    remembered: list[dict[str, bytes]] = field(default_factory=list)
    #: Answers that promise nothing new of the disk, and those that wait for it.
    before_commit: list[tuple[PendingRequest, Answer]] = field(default_factory=list)
    after_commit: list[tuple[PendingRequest, Answer]] = field(default_factory=list)
    #: The maintenance windows as they are on the disk, once this batch has changed one.
    windows_before: tuple[MaintenanceRow, ...] = ()
    #: The flags as they are on the disk, once this batch has changed one.
    flags_before: Mapping[str, FlagRow] = field(default_factory=dict)

    def answer(self, pending: PendingRequest, answer: Answer, is_after_commit: bool) -> None:
        """Note what a request is to be told."""
        (
            self.after_commit if is_after_commit or self.is_all_after_commit else self.before_commit
        ).append((pending, answer))

    def add_rows(self, cache: SubjobCache, renewed: Container[int]) -> None:
        """Put the changed subjobs into the batch; `renewed` are leases not on the disk as read."""
        self.write_set.at = self.now
        for key, (entry, before, _) in self.changed.items():
            row = entry.row(key.subjob, self.now)
            if before is None or before.status is not entry.state.status:
                self.write_set.counts[row.workflow_id, row.status] += 1
                if before is not None:
                    self.write_set.counts[row.workflow_id, before.status.value] -= 1
            cache.resize(entry, len(row.snapshot))
            self.write_set.subjobs.append(row)
            if (
                before is None
                or before.fence != row.fence
                or before.deadline_at != row.deadline_at
                or row.id in renewed
            ):
                self.write_set.leases.append((row.id, row.deadline_at, row.ttl_seconds))

    def release(self) -> None:
        """Let go of the entries that this batch has changed: it is on the disk, or undone."""
        for entry, _, _ in self.changed.values():
            entry.unwritten -= 1

    def forget_old_requests(self) -> None:
        """Recognise no more than the last requests of the subjobs that accepted some."""
        for requests in self.remembered:
            while len(requests) > REQUESTS_KEPT:
                del requests[next(iter(requests))]
