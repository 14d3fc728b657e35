"""What the writer asks of whoever keeps states between two of its turns.

Two keepers: `memory_states` is the only one over its store and so trusts its memory;
`postgresql.keeper` has others beside it, and each of its turns reads what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from htlease.rules.attempt import SubjobKey
from htlease_server.engine.batch import Turn, Waiting
from htlease_server.engine.downtime import Uptime
from htlease_server.engine.site.retention import Trim, Trimmed
from htlease_server.engine.site.workflows import WorkflowBook
from htlease_server.engine.states.cache import Entry, SubjobCache
from htlease_server.store.base import FlagRow, HistoryRow, Reader


class Vantage(NamedTuple):
    """What tells true deadlines from stored ones at one instant."""

    now: float
    uptime: Uptime
    #: Row ID -> (deadline, ttl) of leases that are not on the disk as they are.
    unflushed: Mapping[int, tuple[float, float]]

    def deadline(self, row_id: int, deadline_at: float, ttl_seconds: float) -> float:
        """Return the true deadline of a held lease from the stored one."""
        deadline_at, _ = self.unflushed.get(row_id, (deadline_at, ttl_seconds))
        return self.uptime.deadline(deadline_at, ttl_seconds, self.now)


class Keeper(Protocol):
    """Finds states for a turn; for whoever decides, but for `vantage`."""

    cache: SubjobCache
    book: WorkflowBook
    uptime: Uptime
    #: Every grant to a subjob whose earlier fences are not known here is above it.
    fence_floor: int
    #: Subjobs whose deletion is not on the disk yet.
    going: set[SubjobKey]
    #: By name; replaced as a whole.
    flags: Mapping[str, FlagRow]

    @property
    def name(self) -> str:
        """What a person calls the store; holds no secret."""

    @property
    def unflushed(self) -> Mapping[int, tuple[float, float]]:
        """Row ID -> (deadline, ttl) of leases renewed in memory only; for counters."""

    def entry(self, key: SubjobKey, now: float) -> Entry | None:
        """Return a subjob with its true deadline, or None when there is no such."""

    def add(self, key: SubjobKey, entry: Entry) -> None:
        """Keep the entry of a subjob that this turn makes."""

    def requests_of(self, entry: Entry, request_id: str) -> dict[str, bytes]:
        """Return the accepted requests of a subjob that are still recognised.

        Some may be missing, but not the one that is asked for.
        """

    def refused(self, entry: Entry, request_id: str) -> HistoryRow | None:
        """Return the record of a refused acquire of a subjob, if there is one of that request."""

    def new_subjob_id(self) -> int:
        """Return a row ID that nobody has."""

    def renewed(self, entry: Entry) -> None:
        """Take note of a live lease of which nothing but the deadline has moved."""

    def trim(self, turn: Turn, trim: Trim) -> Trimmed:
        """Delete some subjobs of a workflow with this turn, if all of them are closed."""

    def reader(self) -> Reader:
        """Return a new connection for look-ups that sees what has been committed."""

    def vantage(self, reader: Reader) -> Vantage:
        """Return the vantage of a look-up over this reader; for the thread that looks up."""

    def close(self) -> None:
        """Let go of the store."""


class TurnKeeper(Keeper, Protocol):
    """A keeper whose every turn is open, decide in order, commit; these raise StoreFailed."""

    def open(self, requests: Sequence[Waiting], is_last: bool) -> Turn:
        """Begin a turn, which may be the server's last one.

        Whatever the requests name can be found from now on.
        """

    def commit(self, turn: Turn) -> bool:
        """Make a turn durable; tell whether there was anything to write."""

    def undo(self, turn: Turn) -> None:
        """Go back to what is on the disk."""
