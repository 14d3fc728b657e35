"""The writer over a store that other servers write to: turn by turn, each one transaction.

Runs as a thread: a batch has to look at the store before it can decide.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter

from htlease.rules import messages as m
from htlease_server.engine.batch import Answer, PendingRequest, QueueFull
from htlease_server.engine.commit.priority_queue import PriorityQueue
from htlease_server.engine.commit.store_writer import BATCH_MAX, IDLE_SECONDS, StoreWriter, resolve
from htlease_server.engine.execute import execute, is_bare_renewal
from htlease_server.engine.states.state_source import TransactionalStateSource
from htlease_server.logs import note
from htlease_server.store.base import Conflict, Displaced, StoreFailed, Unstorable

#: How often a batch is taken when other servers over the same store are faster.
_TRIES = 10
#: The event loop and the writer give Python's global lock away whenever they wait for a socket. To
#: be made to give it away in between (every 5 ms by default) parts the requests that arrive
#: together into several batches, each with its round trips: a third fewer writes.
_SWITCH_SECONDS = 0.05


class SharedStoreWriter(StoreWriter):
    """The writer thread and its queue."""

    states: TransactionalStateSource

    def __init__(
        self, states: TransactionalStateSource, clock: Callable[[], float], queue: PriorityQueue
    ) -> None:
        super().__init__(states, clock, queue)
        self._loop: asyncio.AbstractEventLoop
        self._wake = threading.Event()
        self._is_wake_due = False
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="htlease-writer", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.states.close()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and self.displaced is None

    def submit(self, pending: PendingRequest) -> None:
        if self.displaced is not None:
            raise QueueFull(str(self.displaced))
        self._queue.add(pending)
        if not self._is_wake_due:
            # Once all requests that have arrived by now are in the queue: the writer then takes
            # them together, and does not contend for Python's global lock while they are read.
            self._is_wake_due = True
            self._loop.call_soon(self._wake_writer)

    def _wake_writer(self) -> None:
        self._is_wake_due = False
        self._wake.set()

    # ------------------------------------------------------------ the writer thread

    def _run(self) -> None:
        while True:
            self._wake.wait(IDLE_SECONDS)
            self._wake.clear()
            # Read before the queue, so that nothing queued before the stop is left.
            is_last = self._is_stopping
            while self._queue.waiting:
                requests = list(self._queue.next(BATCH_MAX))
                renewals = [pending for pending in requests if is_bare_renewal(pending)]
                # In a batch of their own, which does not wait for the disk.
                if 0 < len(renewals) < len(requests):
                    self._run_batch(renewals)
                    requests = [pending for pending in requests if not is_bare_renewal(pending)]
                self._run_batch(requests)
            self._run_batch([], is_last)
            if is_last:
                return

    def _run_batch(self, requests: Sequence[PendingRequest], is_last: bool = False) -> None:
        tries_left = _TRIES
        while True:
            tries_left -= 1
            try:
                self._try_batch(requests, is_last)
            except Conflict as problem:
                if tries_left:
                    continue
                self._refuse(requests, problem)
            except Unstorable as problem:
                if len(requests) > 1:  # one of them is to blame, and the others are to go on
                    for pending in requests:
                        self._run_batch([pending])
                    return
                refused = m.Rejection("invalid", f"the request cannot be stored: {problem}")
                self._answer((pending, refused) for pending in requests)
            except StoreFailed as problem:
                if isinstance(problem, Displaced):
                    self.displaced = problem
                self._refuse(requests, problem)
            except Exception as problem:  # a mistake of ours; the thread has to live on
                note(logging.ERROR, "writing a batch failed", trace=True, requests=len(requests))
                self._refuse(requests, StoreFailed(f"the batch could not be written: {problem!r}"))
            return

    def _try_batch(self, requests: Sequence[PendingRequest], is_last: bool) -> None:
        states = self.states
        batch = states.open(requests, is_last)
        try:
            for pending in requests:
                execute(batch, states, pending)
            self._answer(batch.before_commit)
            started = perf_counter()
            if states.commit(batch):
                self._note_commit(len(requests), perf_counter() - started)
        except BaseException:
            states.undo(batch)
            raise
        finally:
            batch.release()
            states.cache.shrink()
        self._answer(batch.after_commit)

    def _refuse(self, requests: Sequence[PendingRequest], problem: StoreFailed) -> None:
        """Tell everybody in a batch that has failed, but for those who have their answer."""
        refused = self._refusal(problem)
        self._answer((pending, refused) for pending in requests)

    def _answer(self, answers: Iterable[tuple[PendingRequest, Answer]]) -> None:
        given = list(answers)
        if given:
            try:
                self._loop.call_soon_threadsafe(resolve, given)
            except RuntimeError:
                note(logging.WARNING, "requests were answered too late", requests=len(given))
