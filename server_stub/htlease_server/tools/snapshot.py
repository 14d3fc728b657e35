"""A store as those see it who copy, check or move all of it; runs beside or without a server."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from htlease_server.store.base import (
    AuditRow,
    FlagRow,
    HistoryRow,
    MaintenanceRow,
    Run,
    SubjobRow,
    WorkflowRow,
    WriteSet,
)


class SubjobRecord(NamedTuple):
    """A subjob with all that ever happened to it."""

    subjob: SubjobRow
    history: Sequence[HistoryRow]


def subjob_records_of(
    subjobs: Iterable[SubjobRow], history: Iterable[HistoryRow]
) -> Iterator[SubjobRecord]:
    """Put subjobs and events together; both come in the order of the subjobs' row IDs."""
    events = itertools.groupby(history, lambda row: row.subjob_id)
    event_id, found = next(events, (None, iter(())))
    for subjob in subjobs:
        while event_id is not None and event_id < subjob.id:
            event_id, found = next(events, (None, iter(())))
        yield SubjobRecord(subjob, list(found) if event_id == subjob.id else [])


class Writer(Protocol):
    """Takes write sets; nobody else writes meanwhile."""

    def write(self, write_set: WriteSet) -> None:
        """Make a write set durable, wholly or not at all; raises StoreFailed."""


class StoreSnapshot(Protocol):
    """Everything in a store, as it was at one instant, whatever a server does meanwhile."""

    #: What a person calls this store.
    name: str

    def workflows(self) -> Iterator[WorkflowRow]:
        """Yield all workflows, in the order of their row IDs."""

    def subjob_records(self) -> Iterator[SubjobRecord]:
        """Yield all subjobs that have a lease record, in the order of their row IDs."""

    def held(self) -> Iterator[SubjobRow]:
        """Yield the subjobs whose lease nobody has given up."""

    def known_ids(self) -> Iterator[tuple[str, int]]:
        """Yield (ID text, subjob's row ID), in order."""

    def is_known_as(self, subjob_id: int, id_text: str) -> bool:
        """Tell whether a look-up by an ID finds a subjob."""

    def counts(self) -> Mapping[tuple[int, str], int]:
        """Return how many subjobs there are by workflow and status, as the store says."""

    def runs(self) -> Sequence[Run]:
        """Return the runs of servers, oldest first."""

    def maintenance(self) -> Sequence[MaintenanceRow]:
        """Return the maintenance windows, oldest first."""

    def flags(self) -> Sequence[FlagRow]:
        """Return the flags, in the order of their names."""

    def audit_entries(self) -> Iterator[AuditRow]:
        """Yield what was done to the site itself, oldest first; revocations are among it."""

    def fence_floor(self) -> int:
        """Return the fence above which every subjob begins that the store does not know."""

    def damage(self, is_quick: bool) -> Iterator[str]:
        """Yield what the database itself finds wrong, and rows that belong to nothing."""

    def close(self) -> None:
        """Let go of the store."""
