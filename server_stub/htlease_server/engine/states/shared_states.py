"""Keeps states for one of several servers over one database: what is in memory saves only reading.

Every batch locks the subjobs it is about and reads what has changed since this server saw them
last. Nothing is told before the commit. All commits wait for the disk (and for a synchronous
standby) but those of batches in which live leases were renewed and nothing else. Why that is safe:

The write-ahead log is a sequence. About once a second some server commits durably, and with it a
sign of life that lies ALIVE_MARGIN_SECONDS back. A batch takes less than that from its look at
the clock to its commit. So if the database crashes or another one takes over, the renewals that
are lost were answered after the last sign of life that is left, by leases that were live then.
The first server that connects afterwards finds it out (`PostgresStore`, table `database_life`)
and begins a run; the gap before it extends all those leases to their ttl from then on (rule 8).
It is the same when no server could reach the database for some seconds.

A primary that was cut off from its standby can still be asked. Its servers renew no longer than
DURABLE_MAX_SECONDS after a commit that the standby has confirmed; the gap is longer than that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.state import SubjobState
from htlease_server.engine.batch import Batch, PendingRequest
from htlease_server.engine.downtime import DowntimeCorrection
from htlease_server.engine.execute import is_bare_renewal
from htlease_server.engine.history import state_from
from htlease_server.engine.site.flags import PutFlag
from htlease_server.engine.site.maintenance import WindowChange
from htlease_server.engine.site.retention import SUBJOBS_MAX, Trim, Trimmed, chosen
from htlease_server.engine.site.workflows import PutWorkflow, WorkflowBook
from htlease_server.engine.states.cache import ENTRIES_MAX, Entry, SubjobCache
from htlease_server.engine.states.state_source import ReadContext
from htlease_server.models.request_models import CommandRequest
from htlease_server.store.base import Conflict, FlagRow, HistoryRow, Reader, Run, WorkflowRow
from htlease_server.store.postgresql.postgres_reader import ALIVE_MARGIN_SECONDS, PostgresReader
from htlease_server.store.postgresql.postgres_store import Found, PostgresStore, Wanted

SIGN_OF_LIFE_SECONDS = 1.0
DURABLE_MAX_SECONDS = 5.0
#: From the look at the clock to the write, for batches whose commit does not wait for the disk.
RENEWAL_MAX_SECONDS = 5.0
#: Row IDs are given in blocks of so many; more than a batch can need.
ID_BLOCK = 1000


class _Ids:
    """Row IDs that this server may give."""

    def __init__(self) -> None:
        self._next = self._end = 0

    def has(self, count: int) -> bool:
        return self._end - self._next >= count

    def add_block(self, first: int | None) -> None:
        if first is not None:
            self._next, self._end = first, first + ID_BLOCK

    def take(self) -> int:
        assert self._next < self._end, "a batch took more row IDs than it has requests"
        self._next += 1
        return self._next - 1


class _Known(NamedTuple):
    """Gaps and maintenance windows as they were read, and by what to see that they changed."""

    version: tuple[int, int] | None
    downtime: DowntimeCorrection


class SharedStates:
    """The state source of a database that other servers write to as well."""

    unflushed: dict[int, tuple[float, float]]

    def __init__(self, store: PostgresStore, entries_max: int = ENTRIES_MAX) -> None:
        self._store = store
        self.name = store.name
        self.unflushed = {}
        self.cache = SubjobCache(entries_max)
        self._connections = store.connections
        self._workflow_ids, self._subjob_ids = _Ids(), _Ids()
        self._found: dict[SubjobKey, Entry] = {}
        self._renewed: dict[int, Entry] = {}
        self._workflow_rows: dict[str, WorkflowRow] = {}
        self.book = WorkflowBook(self._workflow_rows.get, self._workflow_ids.take)
        self._known = _Known(None, DowntimeCorrection(()))
        self.downtime = self._known.downtime
        self.flags: Mapping[str, FlagRow] = {}
        self._flags_version = 0
        #: The batch before changed flags: whether they are in the database is to be seen.
        self._has_changed_flags = False
        self._clock_at = 0.0
        self.fence_floor = 0
        self.deleting: set[SubjobKey] = set()
        #: By this server's own steady clock.
        self._alive_at = self._durable_at = time.monotonic() - DURABLE_MAX_SECONDS

    # ------------------------------------------------------------ the beginning of a batch

    def open(self, requests: Sequence[PendingRequest], is_last: bool) -> Batch:
        self._found, self._renewed = {}, {}
        if not (requests or is_last or self._is_sign_due()):
            return Batch(0.0)
        wanted = self._wanted(requests)
        try:
            now = self._opened(requests, wanted, self._store.open(wanted))
            return Batch(now, is_last, is_all_after_commit=True)
        except BaseException:
            self._undo()
            raise

    def _is_sign_due(self) -> bool:
        return time.monotonic() >= self._alive_at + SIGN_OF_LIFE_SECONDS

    def _wanted(self, requests: Sequence[PendingRequest]) -> Wanted:
        if self._connections != self._store.connections:
            self._forget_all()
        keys: dict[SubjobKey, None] = {}
        workflows, locked = set(), set()
        is_maintenance = is_flag = False
        for pending in requests:
            command_request = pending.sent
            if isinstance(command_request, CommandRequest):
                assert pending.key is not None
                keys[pending.key] = None
                is_held_back = self.flags and isinstance(command_request.command, m.Enter)
                is_of_workflow = isinstance(command_request.command, (m.Acquire, m.Enroll))
                if is_held_back or is_of_workflow or pending.is_own_only:
                    workflows.add(pending.key.workflow)
            elif isinstance(command_request, WindowChange):
                is_maintenance = True
            elif isinstance(command_request, PutFlag):
                is_flag = True
            elif isinstance(command_request, PutWorkflow):
                locked.add(command_request.name)
                if command_request.body.copy_of is not None:
                    workflows.add(command_request.body.copy_of)
        known, named = [], []
        for key in keys:
            entry = self.cache.get(key)
            if entry is None:
                named.append(key)
            else:
                known.append((entry.id, entry.seq))
                self._found[key] = entry
        return Wanted(
            known,
            named,
            tuple(workflows - locked),
            tuple(sorted(locked)),
            is_maintenance,
            is_flag,
            not self._workflow_ids.has(len(requests)),
            not self._subjob_ids.has(len(requests)),
        )

    def _opened(self, requests: Sequence[PendingRequest], wanted: Wanted, found: Found) -> float:
        """Take what was found; return what time it is."""
        if self._connections != self._store.connections:
            raise Conflict("the database was lost and found again")
        now = found.moment.now
        self._clock_at = found.moment.clock_at
        self.fence_floor = found.moment.fence_floor
        self._workflow_ids.add_block(found.workflow_ids)
        self._subjob_ids.add_block(found.subjob_ids)
        if self._known.version != found.moment.version or wanted.is_maintenance:
            self._known = _Known(found.moment.version, self._read_uptime(self._store))
        self.downtime = self._known.downtime
        if wanted.is_maintenance:  # which changes it; readers go on with what is committed
            self.downtime = self._read_uptime(self._store)
        if self._flags_version != found.moment.flags or self._has_changed_flags:
            had_none = not self.flags
            self.flags = {row.name: row for row in self._store.flags()}
            self._flags_version = found.moment.flags
            if had_none and self.flags:
                # Which groups the workflows belong to was not looked up as long as there were none.
                raise Conflict("another server has lowered the first flag")
        self._has_changed_flags = wanted.is_flag
        self._workflow_rows = found.workflows
        self.book = WorkflowBook(self._workflow_rows.get, self._workflow_ids.take)
        self._take_known(found, now)
        for key, (row_id, workflow_id, seq, deadline_at, snapshot) in found.named.items():
            stored = state_from(snapshot, deadline_at)
            entry = Entry(row_id, workflow_id, self.downtime.correct(stored, now), seq, 0)
            holder = stored.holder
            entry.is_heard = holder is not None and self.downtime.is_heard(
                deadline_at, holder.ttl_seconds
            )
            self.add(key, entry)
            self.cache.resize(self._found[key], len(snapshot))
        self._read_requests(requests)
        return now

    def _take_known(self, found: Found, now: float) -> None:
        """Bring what is remembered to what the database says."""
        for key, entry in list(self._found.items()):
            row = found.known.get(entry.id)
            if row is None:  # somebody has removed it
                self.cache.forget(key)
                del self._found[key]
                continue
            seq, deadline_at, snapshot = row
            if snapshot is not None:
                entry.seq, entry.requests = seq, None
                entry.state = state_from(snapshot, deadline_at)
                self.cache.resize(entry, len(snapshot))
            elif entry.state.deadline_at != deadline_at:
                entry.state = replace(entry.state, deadline_at=deadline_at)
            holder = entry.state.holder
            entry.is_heard = holder is not None and self.downtime.is_heard(
                deadline_at, holder.ttl_seconds
            )
            entry.state = self.downtime.correct(entry.state, now)

    def _read_requests(self, requests: Sequence[PendingRequest]) -> None:
        """Read which requests are recognised, for all subjobs at once of which it is not known."""
        lacking: dict[int, Entry] = {}
        for pending in requests:
            entry = self._found.get(pending.key) if pending.key else None
            if entry is not None and entry.requests is None and not is_bare_renewal(pending):
                lacking[entry.id] = entry
        if lacking:
            for row_id, accepted in self._store.accepted(list(lacking)).items():
                lacking[row_id].requests = accepted

    @staticmethod
    def _read_uptime(reader: PostgresReader) -> DowntimeCorrection:
        return DowntimeCorrection(reader.runs(), reader.maintenance())

    # ------------------------------------------------------------ within a batch

    def entry(self, key: SubjobKey, now: float) -> Entry | None:
        return self._found.get(key)

    def add(self, key: SubjobKey, entry: Entry) -> None:
        self._found[key] = entry
        self.cache.put(key, entry)

    def requests_of(self, entry: Entry, request_id: str) -> dict[str, bytes]:
        assert entry.requests is not None, "a batch did not read what it needs"
        return entry.requests

    def refused(self, entry: Entry, request_id: str) -> HistoryRow | None:
        return self._store.refused(entry.id, request_id)

    def new_subjob_id(self) -> int:
        return self._subjob_ids.take()

    def renewed(self, entry: Entry) -> None:
        self._renewed[entry.id] = entry

    def trim(self, batch: Batch, trim: Trim) -> Trimmed:
        # Over the reading connection: it knows what is committed, and locks come after it.
        eligible = self._store.closed_workflows(trim.before, trim.workflow_id - 1, 1)
        if not eligible or eligible[0][0] != trim.workflow_id:
            return Trimmed(0, 0, is_done=True)
        rows = [
            row
            for row in self._store.closed_subjobs(trim.workflow_id, SUBJOBS_MAX)
            if SubjobKey(trim.workflow, row.name) not in self._found
        ]
        closed = set(self._store.lock_closed([row.id for row in rows]))
        rows = [row for row in rows if row.id in closed]
        taken = list(chosen(self._store, trim.workflow_id, rows))
        for row, _ in taken:
            batch.write_set.deleted_counts[trim.workflow_id, row.status] -= 1
        batch.write_set.deleted += [deleted for _, deleted in taken]
        if taken:
            self.fence_floor = max(self.fence_floor, *(row.fence for row, _ in taken))
            self._store.let_go([deleted for _, deleted in taken], self.fence_floor)
        events = sum(deleted.events for _, deleted in taken)
        return Trimmed(len(taken), events, is_done=len(taken) in (0, eligible[0][2]))

    # ------------------------------------------------------------ the end of a batch

    def commit(self, batch: Batch) -> bool:
        if not batch.now:
            return False
        write_set = batch.write_set
        batch.add_rows(self.cache, self._renewed)
        is_durable = write_set.has_changes
        saved = {row_id for row_id, _, _ in write_set.leases}
        for row_id, entry in self._renewed.items():
            if row_id not in saved:
                write_set.leases.append((row_id, entry.state.deadline_at, _ttl_of(entry.state)))
        started = time.monotonic()
        if (
            batch.is_last
            or self._is_sign_due()
            or started >= self._durable_at + DURABLE_MAX_SECONDS
        ):
            write_set.alive = Run(0.0, batch.now - ALIVE_MARGIN_SECONDS)
            is_durable = True
        if not is_durable and not write_set.leases:
            self._store.rollback()
            return False
        self._store.write(write_set, None if is_durable else self._clock_at + RENEWAL_MAX_SECONDS)
        if is_durable:
            self._durable_at = started
        if write_set.alive:
            self._alive_at = started
        batch.forget_old_requests()
        return True

    def undo(self, batch: Batch) -> None:
        self._undo()

    def _undo(self) -> None:
        """End the transaction, and remember nothing that may be other than in the database."""
        self._store.rollback()
        for key in self._found:
            self.cache.forget(key)
        self._found = {}

    def _forget_all(self) -> None:
        """Drop what was learned over a connection that is gone; the database may be another."""
        self._connections = self._store.connections
        self.cache.clear()
        self._found = {}
        self._known = _Known(None, self._known.downtime)
        self._has_changed_flags = True
        self._workflow_ids, self._subjob_ids = _Ids(), _Ids()
        self._durable_at = self._alive_at = time.monotonic() - DURABLE_MAX_SECONDS

    # ------------------------------------------------------------ for others

    def reader(self) -> Reader:
        return self._store.reader()

    def read_context(self, reader: Reader) -> ReadContext:
        looking = cast(PostgresReader, reader)
        moment, known = looking.moment(), self._known
        same = known.version == moment.version
        return ReadContext(moment.now, known.downtime if same else self._read_uptime(looking), {})

    def close(self) -> None:
        self._store.close()


def _ttl_of(state: SubjobState) -> float:
    assert state.holder is not None
    return state.holder.ttl_seconds
