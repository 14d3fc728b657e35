"""The writer of a server that has its store for itself: decides at once, and commits beside that.

Requests are decided in the event loop, in the turn that is open. While a thread makes one turn
durable, and so is out of Python, the next one fills; whoever waits for the disk is answered when
its turn is on it. What was decided on top of a turn that the store refused is undone with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from time import perf_counter

from htlease_server.deciding import take
from htlease_server.exclusive import ExclusiveKeeper
from htlease_server.lanes import Lanes
from htlease_server.ledger import BATCH_MAX, IDLE_SECONDS, Ledger, give
from htlease_server.logs import note
from htlease_server.store import StoreFailed
from htlease_server.turn import Turn, Waiting


class Pipeline(Ledger):
    """The open turn, the one that is being written, and the thread that writes it."""

    keeper: ExclusiveKeeper

    def __init__(self, keeper: ExclusiveKeeper, clock: Callable[[], float], lanes: Lanes) -> None:
        super().__init__(keeper, clock, lanes)
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop
        self._open = keeper.open()
        self._written: Turn | None = None
        self._is_due = False
        self._is_stopping = False
        #: Turns for the thread, and what became of them.
        self._turns: queue.SimpleQueue[Turn | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[StoreFailed | None, float]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="htlease-writer", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        # The loop has ended, so whatever it would do is done here.
        self._is_stopping = True
        if self._thread.ident is None:
            self.keeper.close()
            return
        while self._written or self._lanes.waiting or self._open.late:
            if self._written:
                self._end_turn(*self._results.get())
            else:
                self._take_turn()
        self._open.is_last = True
        self._begin_to_write()
        if self._written:
            self._end_turn(*self._results.get())
        self._turns.put(None)
        self._thread.join()
        self.keeper.close()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, waiting: Waiting) -> None:
        self._lanes.add(waiting)
        # Once all requests that have arrived by now are in the queue, so that the most urgent of
        # them come first.
        self._come_back()

    # ------------------------------------------------------------ in the event loop

    def _take_turn(self) -> None:
        self._is_due = False
        self._decide()
        if self._written is None:
            self._begin_to_write()
        if self._lanes.waiting and len(self._open.late) < BATCH_MAX:
            self._come_back()

    def _come_back(self) -> None:
        if not self._is_due and not self._is_stopping:
            self._is_due = True
            self._loop.call_soon(self._take_turn)

    def _decide(self) -> None:
        turn = self._open
        turn.now = self._clock()
        for waiting in self._lanes.next(BATCH_MAX - len(turn.late)):
            take(turn, self.keeper, waiting)
        early, turn.early = turn.early, []
        give(early)
        self.keeper.cache.shrink()

    def _begin_to_write(self) -> None:
        turn = self._open
        if not (turn.late or turn.is_last or self.keeper.is_flush_due()):
            return
        turn.now = self._clock()
        self._open = self.keeper.open()
        self._written = turn
        try:
            is_any = self.keeper.prepare(turn)
        except Exception as problem:
            self._end_turn(_mistake(turn, problem), 0.0)
            return
        if is_any:
            self._turns.put(turn)
        else:
            self._written = None
            give(turn.late)

    def _take_result(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._end_turn(*self._results.get_nowait())

    def _on_idle(self) -> None:
        if self._written is None:
            self._begin_to_write()

    def _end_turn(self, problem: StoreFailed | None, seconds: float) -> None:
        turn, self._written = self._written, None
        assert turn is not None
        if problem is None:
            self.keeper.wrote(turn)
            self._note_commit(len(turn.late), seconds)
            give(turn.late)
        else:
            above, self._open = self._open, self.keeper.open()
            self.keeper.undo(above)
            self.keeper.undo(turn)
            refused = self._refusal(problem)
            give((waiting, refused) for waiting, _ in [*turn.late, *above.late])
        if not self._is_stopping:
            self._take_turn()

    # ------------------------------------------------------------ in the writer's thread

    def _write(self) -> None:
        while True:
            try:
                turn = self._turns.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                self._tell_loop(self._on_idle)
                continue
            if turn is None:
                return
            self._results.put(self._tried(turn))
            self._tell_loop(self._take_result)

    def _tell_loop(self, what: Callable[[], None]) -> None:
        # A loop that has ended is told nothing: `stop` looks for itself.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what)

    def _tried(self, turn: Turn) -> tuple[StoreFailed | None, float]:
        started = perf_counter()
        try:
            self.keeper.write(turn)
        except StoreFailed as problem:
            return problem, 0.0
        except Exception as problem:  # a mistake of ours; the thread has to live on all the same
            return _mistake(turn, problem), 0.0
        return None, perf_counter() - started


def _mistake(turn: Turn, problem: Exception) -> StoreFailed:
    note(logging.ERROR, "writing a batch failed", trace=True, requests=len(turn.late))
    return StoreFailed(f"the batch could not be written: {problem!r}")
