"""The one writer: takes all waiting commands, decides them in order, commits once, answers.

Runs as a thread of the server. Every rule about leases is in `htlease.lifecycle`; here is only
which state a command meets, what has to be on the disk before the answer, and what happens when
the disk refuses. Not promised: that a renewal without details is on the disk when it is answered;
`SubjobCache.unflushed` and `Uptime` make that safe.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from time import perf_counter

from htlease import messages as m
from htlease.attempt import SubjobKey
from htlease.lifecycle import decide, replayed_reply
from htlease.subjob import REQUESTS_KEPT, SubjobState, apply
from htlease_server.bodies import Sent
from htlease_server.cache import Entry, SubjobCache
from htlease_server.history import EVENT_NAMES, data_of, ids_in
from htlease_server.logs import note
from htlease_server.maintenance import PutMaintenance
from htlease_server.store import HistoryRow, Store, StoreFailed, WorkflowRow
from htlease_server.tally import CommitTally
from htlease_server.turn import Answer, Crashed, QueueFull, Turn, Waiting
from htlease_server.uptime import Uptime
from htlease_server.workflow import PutWorkflow, WorkflowBook, plan_in

#: Renewals reach the disk within about this time.
FLUSH_SECONDS = 0.5
#: How often an idle server notes that it is alive.
ALIVE_SECONDS = 5.0
QUEUE_MAX = 5_000
#: Commands decided in one transaction; what more is waiting comes next.
BATCH_MAX = 1_000
RETRY_AFTER_SECONDS = 2.0
#: A commit that takes longer is worth a line in the log.
_SLOW_SECONDS = 1.0


class Ledger:
    """The writer thread and its queue. `submit` is for the event loop's thread only."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        *,
        entries_max: int | None = None,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        started_at = clock()
        self._store = store
        self._clock = clock
        self._queue_max = queue_max
        self.uptime = Uptime(store.begin_run(started_at), started_at, store.maintenance())
        limits = {} if entries_max is None else {"entries_max": entries_max}
        self.cache = SubjobCache(store, self.uptime, **limits)
        self._next_workflow_id, self._next_subjob_id = store.next_ids()
        self._book = WorkflowBook(store, self._new_workflow_id)
        self._queue: deque[Waiting] = deque()
        self._wake = threading.Event()
        self._is_wake_due = False
        self._is_stopping = False
        self._flushed_at = self._alive_at = started_at
        self._thread = threading.Thread(target=self._run, name="htlease-writer", daemon=True)
        #: Why the store refused the last batch, or None when it took it.
        self.failure: str | None = None
        self.commits = CommitTally(clock)

    def start(self) -> None:
        """Start to take requests."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what is queued, write what is not on the disk yet, and let go of the store."""
        self._is_stopping = True
        self._wake.set()
        self._thread.join()
        self._store.close()

    @property
    def is_alive(self) -> bool:
        """Whether the writer thread runs."""
        return self._thread.is_alive()

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def submit(self, waiting: Waiting) -> None:
        """Queue a request; its future gets the answer. Raises QueueFull."""
        if len(self._queue) >= self._queue_max:
            raise QueueFull(f"{len(self._queue)} requests are waiting already")
        self._queue.append(waiting)
        if not self._is_wake_due:
            # Once all requests that have arrived by now are in the queue: the writer then takes
            # them together, and does not contend for Python's global lock while they are read.
            self._is_wake_due = True
            waiting.future.get_loop().call_soon(self._wake_writer)

    def _wake_writer(self) -> None:
        self._is_wake_due = False
        self._wake.set()

    # ------------------------------------------------------------ the writer thread

    def _run(self) -> None:
        while True:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            # Read before the queue, so that nothing queued before the stop is left.
            is_last = self._is_stopping
            while self._queue:
                self._take_turn([self._queue.popleft() for _ in range(self._batch_size())])
            self._take_turn([], is_last)
            if is_last:
                return

    def _batch_size(self) -> int:
        return min(len(self._queue), BATCH_MAX)

    def _take_turn(self, requests: list[Waiting], is_last: bool = False) -> None:
        turn = Turn(self._clock())
        for waiting in requests:
            try:
                if isinstance(waiting.sent, PutWorkflow):
                    self._put_workflow(turn, waiting, waiting.sent)
                elif isinstance(waiting.sent, PutMaintenance):
                    self._put_maintenance(turn, waiting, waiting.sent)
                else:
                    self._command(turn, waiting, waiting.sent)
            except Exception:
                note(logging.ERROR, "deciding a request failed", trace=True, subjob=waiting.key)
                turn.early.append((waiting, Crashed()))
        self._answer(turn.early)
        try:
            self._commit(turn, is_last)
        except StoreFailed as problem:
            self._undo(turn, problem)
        except Exception as problem:  # a mistake of ours; the thread has to live on all the same
            note(logging.ERROR, "writing a batch failed", trace=True, requests=len(requests))
            self._undo(turn, StoreFailed(f"the batch could not be written: {problem!r}"))
        self.cache.shrink()

    def _commit(self, turn: Turn, is_last: bool) -> None:
        batch = turn.batch
        unflushed = self.cache.unflushed
        for key, (entry, before, _) in turn.changed.items():
            row = entry.row(key.subjob, turn.now)
            self.cache.resize(entry, len(row.snapshot))
            batch.subjobs.append(row)
            if (
                before is None
                or before.fence != row.fence
                or before.deadline_at != row.deadline_at
                or row.id in unflushed
            ):
                batch.leases.append((row.id, row.deadline_at, row.ttl_seconds))
        is_flush = is_last or turn.now >= self._flushed_at + FLUSH_SECONDS
        if is_flush and (unflushed or is_last or turn.now >= self._alive_at + ALIVE_SECONDS):
            saved = {id for id, _, _ in batch.leases}
            batch.leases += [(id, *renewed) for id, renewed in unflushed.items() if id not in saved]
            batch.alive = self.uptime.run._replace(alive_at=turn.now)
        if not (batch.subjobs or batch.workflows or batch.maintenance or batch.alive):
            self._answer(turn.late)
            return
        started = perf_counter()
        self._store.write(batch)
        seconds = perf_counter() - started
        self.commits.wrote(len(turn.early) + len(turn.late), seconds)
        if self.failure:
            note(logging.WARNING, "the store takes writes again")
            self.failure = None
        if seconds > _SLOW_SECONDS:
            took = round(seconds, 3)
            note(
                logging.WARNING, "a commit was slow", requests=len(turn.late), duration_seconds=took
            )
        if batch.alive:
            self._flushed_at = self._alive_at = turn.now
            self.cache.unflushed = {}
        for id, _, _ in batch.leases:
            self.cache.unflushed.pop(id, None)
        for requests, _ in turn.remembered:
            while len(requests) > REQUESTS_KEPT:
                del requests[next(iter(requests))]
        self._answer(turn.late)

    def _undo(self, turn: Turn, problem: StoreFailed) -> None:
        """Go back to what is on the disk, and tell everybody who waited for it."""
        if self.failure is None:
            note(logging.ERROR, "the store takes no writes", why=str(problem))
        self.commits.failed += 1
        self.failure = str(problem)
        self._flushed_at = turn.now
        for requests, request_id in turn.remembered:
            requests.pop(request_id, None)
        for key, (entry, state, seq) in turn.changed.items():
            if state is None:
                self.cache.forget(key)
            else:
                entry.state, entry.seq = state, seq
        for row in turn.batch.workflows:
            self._book.forget(row.name)
        if turn.batch.maintenance:
            self.uptime.windows = turn.windows_before
        refused = _overloaded(problem)
        self._answer((waiting, refused) for waiting, _ in turn.late)

    def _answer(self, answers: Iterable[tuple[Waiting, Answer]]) -> None:
        pairs = [(waiting.future, answer) for waiting, answer in answers]
        if pairs:
            try:
                pairs[0][0].get_loop().call_soon_threadsafe(_resolve, pairs)
            except RuntimeError:
                note(logging.WARNING, "requests were answered too late", requests=len(pairs))

    # ------------------------------------------------------------ one request

    def _command(self, turn: Turn, waiting: Waiting, sent: Sent) -> None:
        key, command = waiting.key, sent.command
        assert key is not None
        entry = self.cache.get(key, turn.now)
        if entry is not None and self.uptime.windows:
            entry.state = self.uptime.keep_through_maintenance(entry.state, turn.now)
        is_bare_renewal = isinstance(command, m.Renew) and command.details is None
        known = None
        if entry is not None and not is_bare_renewal:
            known = self.cache.requests_of(entry).get(sent.request_id)
        decision: m.Decision
        if known is not None:
            assert entry is not None
            if known == sent.digest:
                decision = replayed_reply(entry.state, command, turn.now)
            else:
                decision = m.Rejection(
                    "request-id-reused", "this request ID came before with another call or body"
                )
        elif isinstance(command, (m.Enroll, m.Acquire)):
            workflow = self._book.get(key.workflow)
            if workflow is not None and workflow.template:
                decision = m.Rejection(
                    "invalid",
                    f"{key.workflow} is a template; copy it (copy_of) and run the copy",
                    field="workflow",
                )
            else:
                if entry is None:
                    entry = self._new_entry(turn, workflow or self._new_workflow(turn, key))
                if command.plan is None and entry.state.plan is None and workflow is not None:
                    command = replace(command, plan=plan_in(workflow))
                decision = decide(entry.state, command, turn.now)
        elif entry is None:
            decision = m.Rejection("unknown-subjob", f"there is no subjob {key}; acquire it first")
        else:
            decision = decide(entry.state, command, turn.now)

        is_accepted = isinstance(decision, m.Accepted)
        answer: Answer = decision.reply if isinstance(decision, m.Accepted) else decision
        if entry is not None and decision.events:
            self._keep(turn, waiting, sent, entry, decision.events, is_accepted)
        (turn.late if key in turn.changed else turn.early).append((waiting, answer))

    def _keep(
        self,
        turn: Turn,
        waiting: Waiting,
        sent: Sent,
        entry: Entry,
        events: tuple[m.Event, ...],
        is_accepted: bool,
    ) -> None:
        """Change an entry; only what is in `turn.changed` goes to the disk with this batch."""
        key, state = waiting.key, entry.state
        assert key is not None
        is_renewal = isinstance(events[0], m.LeaseRenewed)
        # A lease that had lapsed must not be revived by word of mouth: after a crash the store
        # would say that it lapsed, and give it to another.
        if is_renewal and state.is_live(turn.now):
            entry.state = apply(state, events, turn.now)
            if key not in turn.changed:
                assert state.holder is not None
                renewed = (entry.state.deadline_at, state.holder.ttl_seconds)
                self.cache.unflushed[entry.id] = renewed
            return
        if key not in turn.changed:
            is_new = entry.seq == 0
            turn.changed[key] = (entry, None if is_new else state, entry.seq)
            if is_new:
                self.cache.put(key, entry)
                turn.batch.known_ids.append((key.subjob, entry.id))
        entry.state = apply(state, events, turn.now)
        if is_renewal:
            return
        digest = sent.digest if is_accepted else None
        if is_accepted:
            requests = self.cache.requests_of(entry)
            requests[sent.request_id] = sent.digest
            turn.remembered.append((requests, sent.request_id))
        for event in events:
            entry.seq += 1
            turn.batch.history.append(
                HistoryRow(
                    entry.id,
                    entry.seq,
                    turn.now,
                    EVENT_NAMES[type(event)],
                    getattr(event, "fence", None),
                    waiting.actor,
                    sent.request_id,
                    digest,
                    sent.client_at,
                    waiting.via,
                    data_of(event),
                )
            )
            digest = None
            turn.batch.known_ids.extend((id_text, entry.id) for id_text in ids_in(event))

    def _put_workflow(self, turn: Turn, waiting: Waiting, put: PutWorkflow) -> None:
        decision = self._book.changed(put, turn.now)
        if isinstance(decision, WorkflowRow):
            self._book.keep(decision)
            turn.batch.workflows.append(decision)
        turn.late.append((waiting, decision))

    def _put_maintenance(self, turn: Turn, waiting: Waiting, put: PutMaintenance) -> None:
        if not turn.batch.maintenance:
            turn.windows_before = self.uptime.windows
        row = put.row(self.uptime.windows, turn.now, waiting.actor)
        others = (window for window in self.uptime.windows if window.started_at != row.started_at)
        self.uptime.windows = (*others, row)
        turn.batch.maintenance.append(row)
        turn.late.append((waiting, row))

    def _new_workflow(self, turn: Turn, key: SubjobKey) -> WorkflowRow:
        row = self._book.new(key.workflow, turn.now)
        self._book.keep(row)
        turn.batch.workflows.append(row)
        return row

    def _new_entry(self, turn: Turn, workflow: WorkflowRow) -> Entry:
        entry = Entry(self._next_subjob_id, workflow.id, SubjobState(), 0, 0)
        entry.requests = {}
        self._next_subjob_id += 1
        return entry

    def _new_workflow_id(self) -> int:
        self._next_workflow_id += 1
        return self._next_workflow_id - 1


def _overloaded(problem: StoreFailed) -> m.Rejection:
    return m.Rejection(
        "overloaded",
        f"nothing was changed: {problem}; come again",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def _resolve(pairs: list[tuple[asyncio.Future[Answer], Answer]]) -> None:
    for future, answer in pairs:
        if not future.done():  # its client may have gone
            future.set_result(answer)
