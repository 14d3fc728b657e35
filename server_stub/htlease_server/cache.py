"""States of subjobs in the writer's memory, bounded; the store has the rest.

Only the writer thread changes anything here. `unflushed` may be looked at by readers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from htlease.attempt import SubjobKey
from htlease.subjob import REQUESTS_KEPT, SubjobState
from htlease_server.history import snapshot_of, state_from
from htlease_server.store import Store, SubjobRow
from htlease_server.uptime import Uptime

ENTRIES_MAX = 10_000
SNAPSHOT_BYTES_MAX = 64 * 1024 * 1024


class Entry:
    """A subjob as the writer knows it."""

    __slots__ = ("id", "requests", "seq", "size_bytes", "state", "workflow_id")

    def __init__(
        self, id: int, workflow_id: int, state: SubjobState, seq: int, size_bytes: int
    ) -> None:
        self.id = id
        self.workflow_id = workflow_id
        self.state = state
        #: Of the last event in its history.
        self.seq = seq
        #: Request ID -> digest of the accepted ones, oldest first; None until it is looked at.
        self.requests: dict[str, bytes] | None = None
        #: Of the snapshot, as a measure for the memory that the state takes.
        self.size_bytes = size_bytes

    def row(self, name: str, now: float) -> SubjobRow:
        """Return the row to be stored."""
        state, holder = self.state, self.state.holder
        return SubjobRow(
            self.id,
            self.workflow_id,
            name,
            state.status.value,
            state.fence,
            state.current_phase,
            state.attempt_number,
            holder.attempt_id if holder else None,
            holder.host if holder else None,
            self.seq,
            now,
            snapshot_of(state),
            state.deadline_at,
            holder.ttl_seconds if holder else 0.0,
        )


class SubjobCache:
    """Keeps the entries used last, and every renewed deadline that is not on the disk yet."""

    def __init__(
        self,
        store: Store,
        uptime: Uptime,
        entries_max: int = ENTRIES_MAX,
        bytes_max: int = SNAPSHOT_BYTES_MAX,
    ) -> None:
        self._store = store
        self._uptime = uptime
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._entries: OrderedDict[SubjobKey, Entry] = OrderedDict()
        self._size_bytes = 0
        #: Row ID -> (deadline, ttl) of leases renewed since the last flush, cached or not.
        self.unflushed: dict[int, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: SubjobKey, now: float) -> Entry | None:
        """Return a subjob's entry, from the store if need be, or None when there is no such."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            return entry
        row = self._store.subjob(key)
        if row is None:
            return None
        state = self._uptime.correct(state_from(row.snapshot, row.deadline_at), now)
        renewed = self.unflushed.get(row.id)
        if renewed is not None:
            state = replace(state, deadline_at=renewed[0])
        entry = Entry(row.id, row.workflow_id, state, row.seq, len(row.snapshot))
        self.put(key, entry)
        return entry

    def put(self, key: SubjobKey, entry: Entry) -> None:
        """Keep an entry."""
        self._entries[key] = entry
        self._size_bytes += entry.size_bytes

    def forget(self, key: SubjobKey) -> None:
        """Drop an entry whose subjob the store has refused to make."""
        self._size_bytes -= self._entries.pop(key).size_bytes

    def resize(self, entry: Entry, size_bytes: int) -> None:
        """Note how large an entry's snapshot has become."""
        self._size_bytes += size_bytes - entry.size_bytes
        entry.size_bytes = size_bytes

    def shrink(self) -> None:
        """Drop the entries used longest ago until the rest fits."""
        while len(self._entries) > self._entries_max or self._size_bytes > self._bytes_max:
            _, entry = self._entries.popitem(last=False)
            self._size_bytes -= entry.size_bytes

    def requests_of(self, entry: Entry) -> dict[str, bytes]:
        """Return the accepted requests of a subjob that are still recognised."""
        if entry.requests is None:
            entry.requests = dict(self._store.requests(entry.id, REQUESTS_KEPT))
        return entry.requests
