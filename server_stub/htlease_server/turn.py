"""Requests that wait for the writer, and what one batch of them has done so far."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Union

from htlease import messages as m
from htlease.attempt import SubjobKey
from htlease.errors import HTLeaseError
from htlease.subjob import SubjobState
from htlease_server.bodies import Sent
from htlease_server.cache import Entry
from htlease_server.maintenance import PutMaintenance
from htlease_server.store import Batch, MaintenanceRow, WorkflowRow
from htlease_server.workflow import PutWorkflow


class QueueFull(HTLeaseError):
    """More requests are waiting than the server takes; come again in a moment."""


@dataclass(frozen=True)
class Crashed:
    """Deciding raised an exception; it has been logged, and nothing was changed."""


Answer = Union[m.Reply, m.Rejection, WorkflowRow, MaintenanceRow, Crashed]  # noqa: UP007


class Waiting:
    """One request in the queue: a command for a subjob, or the PUT of something wider."""

    __slots__ = ("actor", "future", "key", "sent", "via")

    def __init__(
        self,
        key: SubjobKey | None,
        sent: Sent | PutWorkflow | PutMaintenance,
        actor: str,
        future: asyncio.Future[Answer],
        via: str | None = None,
    ) -> None:
        self.via = via
        self.key = key
        self.sent = sent
        self.actor = actor
        self.future = future


@dataclass
class Turn:
    """What one batch has done so far."""

    now: float
    batch: Batch = field(default_factory=Batch)
    #: Key -> entry, and its state and seq as they are on the disk (None: not there yet).
    changed: dict[SubjobKey, tuple[Entry, SubjobState | None, int]] = field(default_factory=dict)
    #: Requests accepted in this turn.
    remembered: list[tuple[dict[str, bytes], str]] = field(default_factory=list)
    #: Answers that promise nothing new of the disk, and those that wait for it.
    early: list[tuple[Waiting, Answer]] = field(default_factory=list)
    late: list[tuple[Waiting, Answer]] = field(default_factory=list)
    #: The maintenance windows as they are on the disk, once this turn has changed one.
    windows_before: tuple[MaintenanceRow, ...] = ()
