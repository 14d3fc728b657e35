"""A store as those see it who copy, check or move all of it; runs beside or without a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from htlease_server.store import DeedRow, HistoryRow, MaintenanceRow, Run, SubjobRow, WorkflowRow


class Life(NamedTuple):
    """A subjob with all that ever happened to it."""

    subjob: SubjobRow
    history: Sequence[HistoryRow]


class Whole(Protocol):
    """Everything in a store, as it was at one instant, whatever a server does meanwhile."""

    #: What a person calls this store.
    name: str

    def workflows(self) -> Iterator[WorkflowRow]:
        """Yield all workflows, in the order of their row IDs."""

    def lives(self) -> Iterator[Life]:
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

    def deeds(self) -> Iterator[DeedRow]:
        """Yield what was done to the site itself, oldest first; revocations are among it."""

    def fence_floor(self) -> int:
        """Return the fence above which every subjob begins that the store does not know."""

    def damage(self, is_quick: bool) -> Iterator[str]:
        """Yield what the database itself finds wrong, and rows that belong to nothing."""

    def close(self) -> None:
        """Let go of the store."""
