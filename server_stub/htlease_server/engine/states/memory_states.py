"""Keeps states for a server that has its store for itself: what is in memory is what counts.

Renewals without details are answered from memory and written within `FLUSH_SECONDS`; `unflushed`
and `DowntimeCorrection` make that safe.
"""

from __future__ import annotations

import functools
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import perf_counter

from htlease.rules.attempt import SubjobKey
from htlease.rules.state import REQUESTS_KEPT
from htlease_server.engine.batch import Batch
from htlease_server.engine.downtime import DowntimeCorrection
from htlease_server.engine.history import fingerprint_of, fingerprints_with, snapshot_from
from htlease_server.engine.site.retention import SUBJOBS_MAX, Trim, Trimmed, chosen
from htlease_server.engine.site.workflows import WorkflowBook
from htlease_server.engine.states.cache import ENTRIES_MAX, Entry, SubjobCache
from htlease_server.engine.states.state_source import ReadContext
from htlease_server.store.base import FlagRow, HistoryRow, Reader, Run, Store

#: Renewals reach the disk within about this time.
FLUSH_SECONDS = 0.5
#: How often an idle server notes that it is alive.
ALIVE_SECONDS = 5.0
#: While it is young, after what part of its life: what it lives counts against leases of the dead.
_ALIVE_PART = 1 / 4


class InMemoryStates:
    """The state source of a store that nobody else writes to; `clock` is seconds since 1970."""

    def __init__(
        self, store: Store, clock: Callable[[], float], entries_max: int = ENTRIES_MAX
    ) -> None:
        #: Names this run of a server over the store.
        self.started_at = started_at = clock()
        self._store = store
        #: Look-ups do not wait for the transaction that is being written.
        self._reader = store.reader()
        self.name = store.name
        self._clock = clock
        self._run = Run(started_at, started_at)
        self.downtime = DowntimeCorrection(
            [*store.begin_run(started_at), self._run], store.maintenance()
        )
        self.flags: Mapping[str, FlagRow] = {row.name: row for row in store.flags()}
        self.cache = SubjobCache(entries_max)
        self.fence_floor = store.fence_floor()
        self.deleting: set[SubjobKey] = set()
        #: How long the request that is being decided had to wait for the store; 0 if it had not.
        self.look_up_seconds = 0.0
        self._next_workflow_id, self._next_subjob_id = store.next_ids()
        self.book = WorkflowBook(self._reader.workflow, self._new_workflow_id)
        #: Row ID -> (deadline, ttl) of leases renewed since the last flush began, cached or not.
        self._unflushed: dict[int, tuple[float, float]] = {}
        #: The same of those that are being written.
        self._flushing: dict[int, tuple[float, float]] = {}
        self._flushed_at = self._alive_at = started_at

    @property
    def unflushed(self) -> Mapping[int, tuple[float, float]]:
        return ChainMap(self._unflushed, self._flushing)

    def open(self) -> Batch:
        """Begin a batch."""
        return Batch(self._clock(), is_last=False)

    def entry(self, key: SubjobKey, now: float) -> Entry | None:
        entry = self.cache.get(key)
        if entry is None:
            started = perf_counter()
            row = self._reader.subjob(key)
            if row is None:
                return None
            self.look_up_seconds = perf_counter() - started
            stored, fingerprints = snapshot_from(row.snapshot, row.deadline_at)
            state = self.downtime.correct(stored, now)
            renewed = self._unflushed.get(row.id) or self._flushing.get(row.id)
            if renewed is not None:
                state = replace(state, deadline_at=renewed[0])
            entry = Entry(row.id, row.workflow_id, state, row.seq, len(row.snapshot))
            entry.is_heard = renewed is not None or self.downtime.is_heard(
                row.deadline_at, row.ttl_seconds
            )
            if fingerprints is not None:
                entry.requests, entry.fingerprints, entry.has_all_requests = {}, fingerprints, False
            self.cache.put(key, entry)
        if self.downtime.windows:
            entry.state = self.downtime.keep(entry.state, now)
        return entry

    def add(self, key: SubjobKey, entry: Entry) -> None:
        entry.fingerprints = b""
        self.cache.put(key, entry)

    def requests_of(self, entry: Entry, request_id: str) -> dict[str, bytes]:
        requests = entry.requests
        if requests is None:
            # Of a store of before there were fingerprints, or a batch was undone.
            requests = entry.requests = dict(self._reader.requests(entry.id, REQUESTS_KEPT))
            entry.fingerprints = functools.reduce(fingerprints_with, requests, b"")
            entry.has_all_requests = True
        elif not entry.has_all_requests and request_id not in requests:
            assert entry.fingerprints is not None
            # The history of a subjob may lie on as many pages as it has events.
            if fingerprint_of(request_id) in entry.fingerprints:
                since = dict(requests)
                requests.clear()
                requests.update(self._reader.requests(entry.id, REQUESTS_KEPT))
                requests.update(since)
                entry.has_all_requests = True
        return requests

    def refused(self, entry: Entry, request_id: str) -> HistoryRow | None:
        return self._reader.refused(entry.id, request_id)

    def new_subjob_id(self) -> int:
        self._next_subjob_id += 1
        return self._next_subjob_id - 1

    def _new_workflow_id(self) -> int:
        self._next_workflow_id += 1
        return self._next_workflow_id - 1

    def renewed(self, entry: Entry) -> None:
        state = entry.state
        assert state.holder is not None
        self._unflushed[entry.id] = (state.deadline_at, state.holder.ttl_seconds)

    def trim(self, batch: Batch, trim: Trim) -> Trimmed:
        eligible = self._reader.closed_workflows(trim.before, trim.workflow_id - 1, 1)
        if not eligible or eligible[0][0] != trim.workflow_id or self.cache.is_open(trim.workflow):
            return Trimmed(0, 0, is_done=True)
        rows = self._reader.closed_subjobs(trim.workflow_id, SUBJOBS_MAX)
        write_set, subjobs, events = batch.write_set, 0, 0
        for row, deleted in chosen(self._reader, trim.workflow_id, rows):
            key = SubjobKey(trim.workflow, row.name)
            entry = self.cache.get(key)
            if key in self.deleting or (entry is not None and entry.unwritten):
                continue  # what the disk says of it is not the last word
            if entry is not None:
                self.cache.forget(key)
            self.deleting.add(key)
            batch.deleting.add(key)
            write_set.deleted.append(deleted)
            write_set.deleted_counts[trim.workflow_id, row.status] -= 1
            write_set.fence_floor = max(write_set.fence_floor, row.fence)
            subjobs, events = subjobs + 1, events + deleted.events
        self.fence_floor = max(self.fence_floor, write_set.fence_floor)
        return Trimmed(subjobs, events, is_done=subjobs == eligible[0][2])

    def is_flush_due(self) -> bool:
        """Tell whether renewals in memory, or a sign of life, are to be written."""
        now = self._clock()
        age_seconds = now - self.started_at
        alive_seconds = min(ALIVE_SECONDS, max(FLUSH_SECONDS, age_seconds * _ALIVE_PART))
        return now >= self._flushed_at + FLUSH_SECONDS and (
            bool(self._unflushed) or now >= self._alive_at + alive_seconds
        )

    def prepare(self, batch: Batch) -> bool:
        """Make the batch of a batch; tell whether there is anything to write."""
        write_set, now = batch.write_set, batch.now
        batch.add_rows(self.cache, self._unflushed)
        for id, deadline_at, ttl_seconds in write_set.leases:
            if id in self._unflushed:
                self._unflushed[id] = (deadline_at, ttl_seconds)
        if batch.is_last or self.is_flush_due():
            saved = {id for id, _, _ in write_set.leases}
            write_set.leases += [
                (id, *renewed) for id, renewed in self._unflushed.items() if id not in saved
            ]
            write_set.alive = self._run._replace(alive_at=now)
            self._flushing, self._unflushed = self._unflushed, {}
            self._flushed_at = now
        return bool(write_set.has_changes or write_set.alive)

    def wrote(self, batch: Batch) -> None:
        """Take note that a batch is durable."""
        if batch.write_set.alive:
            self._store.stamp(batch.write_set.alive)
            self._alive_at = batch.write_set.alive.alive_at
            self._flushing = {}
        batch.release()
        self.deleting -= batch.deleting
        batch.forget_old_requests()

    def undo(self, batch: Batch) -> None:
        """Go back to what was before a batch; a later batch has been undone before."""
        batch.release()
        self.deleting -= batch.deleting
        self._flushed_at = batch.now
        if batch.write_set.alive:
            self._unflushed = {**self._flushing, **self._unflushed}
            self._flushing = {}
        for key, (entry, state, seq) in batch.changed.items():
            entry.requests = entry.fingerprints = (
                None  # they may be of requests that came to nothing
            )
            entry.is_heard = entry.was_heard
            if state is None:
                self.cache.forget(key)
                self._unflushed.pop(entry.id, None)
                continue
            entry.state, entry.seq = state, seq
            if entry.id in self._unflushed:
                self.renewed(entry)
        for row in batch.write_set.workflows:
            self.book.forget(row.name)
        if batch.write_set.maintenance:
            self.downtime.windows = batch.windows_before
        if batch.write_set.flags:
            self.flags = batch.flags_before

    def reader(self) -> Reader:
        return self._store.reader()

    def check_in_place(self) -> None:
        """Raise Displaced when the store is not the one any more that this keeps states of."""
        self._store.check_in_place()

    def read_context(self, reader: Reader) -> ReadContext:
        # Taken before the look-up: a renewal that is flushed meanwhile is then seen twice, and
        # not never.
        return ReadContext(self._clock(), self.downtime, self.unflushed)

    def close(self) -> None:
        self._reader.close()
        self._store.close()
