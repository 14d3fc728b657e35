"""States of subjobs in the writer's memory, bounded; the store has the rest."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from htlease.rules.attempt import SubjobKey
from htlease.rules.messages import Rejection
from htlease.rules.state import CLOSED, SubjobState
from htlease_server.engine.history import snapshot_of
from htlease_server.store.base import SubjobRow

ENTRIES_MAX = 10_000
#: Refused requests that are recognised, for each subjob in memory.
REFUSED_KEPT = 32
SNAPSHOT_BYTES_MAX = 64 * 1024 * 1024


class Entry:
    """A subjob as the writer knows it."""

    __slots__ = (
        *("has_all_requests", "id", "is_heard", "fingerprints", "refused", "requests", "seq"),
        *("size_bytes", "state", "unwritten", "was_heard", "workflow_id"),
    )

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
        #: Whether older requests are recognised as well, known by their fingerprints only.
        self.has_all_requests = True
        #: Of all requests that are recognised, see `fingerprint_of`; None: they are not counted.
        self.fingerprints: bytes | None = None
        #: Of the snapshot, as a measure for the memory that the state takes.
        self.size_bytes = size_bytes
        #: Turns that changed it and are not on the disk yet.
        self.unwritten = 0
        #: Whether the disk has, or gets with those batches, that the holder was heard in this run;
        #: and whether it had before them.
        self.is_heard = self.was_heard = False
        #: Request ID -> digest and answer of the requests refused last, oldest first.
        self.refused: dict[str, tuple[bytes, Rejection]] = {}

    def remember_refused(self, request_id: str, digest: bytes, rejection: Rejection) -> None:
        """Recognise a refused request when it comes again; what it left is on record once."""
        self.refused[request_id] = (digest, replace(rejection, events=()))
        if len(self.refused) > REFUSED_KEPT:
            del self.refused[next(iter(self.refused))]

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
            snapshot_of(state, self.fingerprints),
            state.deadline_at,
            holder.ttl_seconds if holder else 0.0,
        )


class SubjobCache:
    """The entries used last. Only who decides changes anything here."""

    def __init__(self, entries_max: int = ENTRIES_MAX, bytes_max: int = SNAPSHOT_BYTES_MAX) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._entries: OrderedDict[SubjobKey, Entry] = OrderedDict()
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: SubjobKey) -> bool:
        return key in self._entries

    def get(self, key: SubjobKey) -> Entry | None:
        """Return a subjob's entry, or None when it is not in memory."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: SubjobKey, entry: Entry) -> None:
        """Keep an entry."""
        self._entries[key] = entry
        self._size_bytes += entry.size_bytes

    def is_open(self, workflow: str) -> bool:
        """Tell whether any of a workflow's subjobs that are in memory is not closed."""
        return any(
            key.workflow == workflow and entry.state.status not in CLOSED
            for key, entry in self._entries.items()
        )

    def forget(self, key: SubjobKey) -> None:
        """Drop an entry."""
        self._size_bytes -= self._entries.pop(key).size_bytes

    def clear(self) -> None:
        """Drop all entries."""
        self._entries.clear()
        self._size_bytes = 0

    def resize(self, entry: Entry, size_bytes: int) -> None:
        """Note how large an entry's snapshot has become."""
        self._size_bytes += size_bytes - entry.size_bytes
        entry.size_bytes = size_bytes

    def shrink(self) -> None:
        """Drop the entries used longest ago until the rest fits."""
        for _ in range(len(self._entries)):
            if len(self._entries) <= self._entries_max and self._size_bytes <= self._bytes_max:
                return
            key, entry = self._entries.popitem(last=False)
            if entry.unwritten:
                self._entries[key] = entry  # the store does not know this state yet
            else:
                self._size_bytes -= entry.size_bytes
