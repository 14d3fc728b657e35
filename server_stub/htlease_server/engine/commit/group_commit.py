"""The ledger of a server that has its store for itself: decides at once, and commits beside that.

Requests are decided in the event loop, in the turn that is open. While a process makes one turn
durable, the next one fills; whoever waits for the disk is answered when its turn is on it. What
was decided on top of a turn that the store refused is undone with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from htlease.rules import messages as m
from htlease_server.engine.batch import QueueFull, Turn, Waiting
from htlease_server.engine.commit.command_log import BATCH_MAX, IDLE_SECONDS, Ledger, give
from htlease_server.engine.commit.prefetch import Ahead
from htlease_server.engine.commit.priority_queue import Lanes
from htlease_server.engine.execute import take
from htlease_server.engine.states.memory_states import ExclusiveKeeper
from htlease_server.logs import note
from htlease_server.store.base import Displaced, StoreFailed
from htlease_server.store.sqlite.writer_process import CommitResult, Writer


class Pipeline(Ledger):
    """The open turn, and the one that is being written."""

    keeper: ExclusiveKeeper

    def __init__(
        self,
        keeper: ExclusiveKeeper,
        clock: Callable[[], float],
        lanes: Lanes,
        writer: Writer,
        ahead: Ahead | None = None,
    ) -> None:
        super().__init__(keeper, clock, lanes)
        self._ahead = ahead or Ahead(keeper.reader)
        self._clock = clock
        self._writer = writer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = keeper.open()
        self._written: Turn | None = None
        self._is_due = False
        self._is_stopping = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._writer.start(loop, self._on_written)
        loop.call_later(IDLE_SECONDS, self._on_idle)

    def stop(self) -> None:
        # The loop has ended, so whatever it would do is done here.
        self._is_stopping = True
        self._take_back(self._ahead.close())
        self._check_in_place()
        if self._loop is not None:
            while self._written or self._lanes.waiting or self._open.late:
                if self._written:
                    self._end_turn(*self._writer.wait())
                else:
                    self._take_turn()
            if self.displaced is None:
                self._open.is_last = True
                self._begin_to_write()
            if self._written:
                self._end_turn(*self._writer.wait())
        self._writer.close()
        self.keeper.close()

    @property
    def is_alive(self) -> bool:
        return self._writer.is_alive and self.displaced is None

    def submit(self, waiting: Waiting) -> None:
        if self.displaced is not None:
            raise QueueFull(str(self.displaced))
        if not self._writer.is_alive:
            # What it did last is not known, so nothing is answered from memory either.
            raise QueueFull("the process that writes the store has ended")
        if self._ahead.is_awake and self._ahead.is_for(waiting, self.keeper.cache):
            assert self._loop is not None
            self._lanes.set_aside(waiting)
            self._ahead.stand_aside(waiting, self._loop, self._take_back)
            return
        self._lanes.add(waiting)
        # Once all requests that have arrived by now are in the queue, so that the most urgent of
        # them come first.
        self._come_back()

    def _take_back(self, requests: Iterable[Waiting]) -> None:
        for waiting in requests:
            self._lanes.take_back(waiting)
        self._come_back()

    def _take_turn(self) -> None:
        self._is_due = False
        # Before anything is promised from memory, renewals included.
        self._check_in_place()
        if self.displaced is not None:
            return
        self._decide()
        if self._written is None:
            self._begin_to_write()
        if self._lanes.waiting and len(self._open.late) < BATCH_MAX:
            self._come_back()

    def _come_back(self) -> None:
        if not self._is_due and not self._is_stopping:
            self._is_due = True
            assert self._loop is not None
            self._loop.call_soon(self._take_turn)

    def _check_in_place(self) -> None:
        if self.displaced is None:
            try:
                self.keeper.check_in_place()
            except Displaced as problem:
                self._give_up(problem)
        elif self._lanes.waiting:
            self._refuse_all(self._refusal(self.displaced))

    def _give_up(self, problem: Displaced) -> None:
        """Promise nothing any more: another may hold what is held here."""
        self.displaced = problem
        turn, self._open = self._open, self.keeper.open()
        self.keeper.undo(turn)
        refused = self._refusal(problem)
        give((waiting, refused) for waiting, _ in turn.late)
        self._refuse_all(refused)

    def _refuse_all(self, refused: m.Rejection) -> None:
        while self._lanes.waiting:
            give((waiting, refused) for waiting in self._lanes.next(BATCH_MAX))

    def _decide(self) -> None:
        turn = self._open
        turn.now = self._clock()
        for waiting in self._lanes.next(BATCH_MAX - len(turn.late)):
            take(turn, self.keeper, waiting)
            if self.keeper.look_up_seconds:
                self._ahead.looked_up(waiting, self.keeper.look_up_seconds)
                self.keeper.look_up_seconds = 0.0
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
            if self.keeper.prepare(turn):
                self._writer.put(turn.write_set)
                return
        except StoreFailed as problem:
            self._end_turn(problem, 0.0)
        except Exception as problem:
            self._end_turn(_mistake(turn, problem), 0.0)
        else:
            self._written = None
            give(turn.late)

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
            self._end_turn(*written)
        elif written.problem is not None:  # it has ended with nothing to do
            self._refusal(written.problem)

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
            if isinstance(problem, Displaced) and self.displaced is None:
                self._give_up(problem)
        if not self._is_stopping:
            self._take_turn()


def _mistake(turn: Turn, problem: Exception) -> StoreFailed:
    note(logging.ERROR, "writing a batch failed", trace=True, requests=len(turn.late))
    return StoreFailed(f"the batch could not be written: {problem!r}")
