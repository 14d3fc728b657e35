"""The writer of a server that has its store for itself: decides at once, and commits beside that.

Requests are decided in the event loop, in the batch that is open. While a process makes one batch
durable, the next one fills; whoever waits for the disk is answered when its batch is on it. What
was decided on top of a batch that the store refused is undone with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from htlease.rules import messages as m
from htlease_server.engine.batch import Batch, PendingRequest, QueueFull
from htlease_server.engine.commit.prefetch import Prefetcher
from htlease_server.engine.commit.priority_queue import PriorityQueue
from htlease_server.engine.commit.store_writer import BATCH_MAX, IDLE_SECONDS, StoreWriter, resolve
from htlease_server.engine.execute import execute
from htlease_server.engine.states.memory_states import InMemoryStates
from htlease_server.logs import note
from htlease_server.store.base import Displaced, StoreFailed
from htlease_server.store.sqlite.writer_process import CommitResult, Writer


class GroupCommitWriter(StoreWriter):
    """The open batch, and the one that is being written."""

    states: InMemoryStates

    def __init__(
        self,
        states: InMemoryStates,
        clock: Callable[[], float],
        queue: PriorityQueue,
        writer: Writer,
        prefetcher: Prefetcher | None = None,
    ) -> None:
        super().__init__(states, clock, queue)
        self._prefetcher = prefetcher or Prefetcher(states.reader)
        self._clock = clock
        self._writer = writer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = states.open()
        self._written: Batch | None = None
        self._is_due = False
        self._is_stopping = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._writer.start(loop, self._on_written)
        loop.call_later(IDLE_SECONDS, self._on_idle)

    def stop(self) -> None:
        # The loop has ended, so whatever it would do is done here.
        self._is_stopping = True
        self._unpark(self._prefetcher.close())
        self._check_in_place()
        if self._loop is not None:
            while self._written or self._queue.waiting or self._open.after_commit:
                if self._written:
                    self._finish_batch(*self._writer.wait())
                else:
                    self._run_batch()
            if self.displaced is None:
                self._open.is_last = True
                self._begin_to_write()
            if self._written:
                self._finish_batch(*self._writer.wait())
        self._writer.close()
        self.states.close()

    @property
    def is_alive(self) -> bool:
        return self._writer.is_alive and self.displaced is None

    def submit(self, pending: PendingRequest) -> None:
        if self.displaced is not None:
            raise QueueFull(str(self.displaced))
        if not self._writer.is_alive:
            # What it did last is not known, so nothing is answered from memory either.
            raise QueueFull("the process that writes the store has ended")
        if self._prefetcher.is_awake and self._prefetcher.is_for(pending, self.states.cache):
            assert self._loop is not None
            self._queue.park(pending)
            self._prefetcher.prefetch(pending, self._loop, self._unpark)
            return
        self._queue.add(pending)
        # Once all requests that have arrived by now are in the queue, so that the most urgent of
        # them come first.
        self._schedule_batch()

    def _unpark(self, requests: Iterable[PendingRequest]) -> None:
        for pending in requests:
            self._queue.unpark(pending)
        self._schedule_batch()

    def _run_batch(self) -> None:
        self._is_due = False
        # Before anything is promised from memory, renewals included.
        self._check_in_place()
        if self.displaced is not None:
            return
        self._decide()
        if self._written is None:
            self._begin_to_write()
        if self._queue.waiting and len(self._open.after_commit) < BATCH_MAX:
            self._schedule_batch()

    def _schedule_batch(self) -> None:
        if not self._is_due and not self._is_stopping:
            self._is_due = True
            assert self._loop is not None
            self._loop.call_soon(self._run_batch)

    def _check_in_place(self) -> None:
        if self.displaced is None:
            try:
                self.states.check_in_place()
            except Displaced as problem:
                self._give_up(problem)
        elif self._queue.waiting:
            self._refuse_all(self._refusal(self.displaced))

    def _give_up(self, problem: Displaced) -> None:
        """Promise nothing any more: another may hold what is held here."""
        self.displaced = problem
        batch, self._open = self._open, self.states.open()
        self.states.undo(batch)
        refused = self._refusal(problem)
        resolve((pending, refused) for pending, _ in batch.after_commit)
        self._refuse_all(refused)

    def _refuse_all(self, refused: m.Rejection) -> None:
        while self._queue.waiting:
            resolve((pending, refused) for pending in self._queue.next(BATCH_MAX))

    def _decide(self) -> None:
        batch = self._open
        batch.now = self._clock()
        for pending in self._queue.next(BATCH_MAX - len(batch.after_commit)):
            execute(batch, self.states, pending)
            if self.states.look_up_seconds:
                self._prefetcher.looked_up(pending, self.states.look_up_seconds)
                self.states.look_up_seconds = 0.0
        before_commit, batch.before_commit = batch.before_commit, []
        resolve(before_commit)
        self.states.cache.shrink()

    def _begin_to_write(self) -> None:
        batch = self._open
        if not (batch.after_commit or batch.is_last or self.states.is_flush_due()):
            return
        batch.now = self._clock()
        self._open = self.states.open()
        self._written = batch
        try:
            if self.states.prepare(batch):
                self._writer.put(batch.write_set)
                return
        except StoreFailed as problem:
            self._finish_batch(problem, 0.0)
        except Exception as problem:
            self._finish_batch(_mistake(batch, problem), 0.0)
        else:
            self._written = None
            resolve(batch.after_commit)

    def _on_idle(self) -> None:
        if self._is_stopping:
            return
        self._check_in_place()
        if self._written is None and self.is_alive:
            self._begin_to_write()
        assert self._loop is not None
        self._loop.call_later(IDLE_SECONDS, self._on_idle)

    def _on_written(self, written: CommitResult) -> None:
        if self._written is not None:
            self._finish_batch(*written)
        elif written.problem is not None:  # it has ended with nothing to do
            self._refusal(written.problem)

    def _finish_batch(self, problem: StoreFailed | None, seconds: float) -> None:
        batch, self._written = self._written, None
        assert batch is not None
        if problem is None:
            self.states.wrote(batch)
            self._note_commit(len(batch.after_commit), seconds)
            resolve(batch.after_commit)
        else:
            above, self._open = self._open, self.states.open()
            self.states.undo(above)
            self.states.undo(batch)
            refused = self._refusal(problem)
            resolve((pending, refused) for pending, _ in [*batch.after_commit, *above.after_commit])
            if isinstance(problem, Displaced) and self.displaced is None:
                self._give_up(problem)
        if not self._is_stopping:
            self._run_batch()


def _mistake(batch: Batch, problem: Exception) -> StoreFailed:
    note(logging.ERROR, "writing a batch failed", trace=True, requests=len(batch.after_commit))
    return StoreFailed(f"the batch could not be written: {problem!r}")
