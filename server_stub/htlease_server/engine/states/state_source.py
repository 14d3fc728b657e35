"""What the writer asks of whoever keeps states between two of its batches.

Two sources: `memory_states` is the only one over its store and so trusts its memory;
`postgresql.states` has others beside it, and each of its batches reads what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from htlease.rules.attempt import SubjobKey
from htlease_server.engine.batch import Batch, PendingRequest
from htlease_server.engine.downtime import DowntimeCorrection
from htlease_server.engine.site.retention import Trim, Trimmed
from htlease_server.engine.site.workflows import WorkflowBook
from htlease_server.engine.states.cache import Entry, SubjobCache
from htlease_server.store.base import FlagRow, HistoryRow, Reader


class ReadContext(NamedTuple):
    """What tells true deadlines from stored ones at one instant."""

    now: float
    downtime: DowntimeCorrection
    #: Row ID -> (deadline, ttl) of leases that are not on the disk as they are.
    unflushed: Mapping[int, tuple[float, float]]

    def deadline(self, row_id: int, deadline_at: float, ttl_seconds: float) -> float:
        """Return the true deadline of a held lease from the stored one."""
        deadline_at, _ = self.unflushed.get(row_id, (deadline_at, ttl_seconds))
        return self.downtime.deadline(deadline_at, ttl_seconds, self.now)


class StateSource(Protocol):
    """Finds states for a batch; for whoever decides, but for `read_context`."""

    cache: SubjobCache
    book: WorkflowBook
    downtime: DowntimeCorrection
    #: Every grant to a subjob whose earlier fences are not known here is above it.
    fence_floor: int
    #: Subjobs whose deletion is not on the disk yet.
    deleting: set[SubjobKey]
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
        """Keep the entry of a subjob that this batch makes."""

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

    def trim(self, batch: Batch, trim: Trim) -> Trimmed:
        """Delete some subjobs of a workflow with this batch, if all of them are closed."""

    def reader(self) -> Reader:
        """Return a new connection for look-ups that sees what has been committed."""

    def read_context(self, reader: Reader) -> ReadContext:
        """Return the context of a look-up over this reader; for the thread that looks up."""

    def close(self) -> None:
        """Let go of the store."""


class TransactionalStateSource(StateSource, Protocol):
    """A source whose every batch is open, decide in order, commit; these raise StoreFailed."""

    def open(self, requests: Sequence[PendingRequest], is_last: bool) -> Batch:
        """Begin a batch, which may be the server's last one.

        Whatever the requests name can be found from now on.
        """

    def commit(self, batch: Batch) -> bool:
        """Make a batch durable; tell whether there was anything to write."""

    def undo(self, batch: Batch) -> None:
        """Go back to what is on the disk."""
