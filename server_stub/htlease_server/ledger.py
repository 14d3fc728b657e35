"""The one writer of a server: takes all waiting commands, decides them in order, commits, answers.

Runs as a thread. Every rule about leases is in `htlease.lifecycle`, what a command meets and leaves
in `deciding`, and what has to be on the disk before the answer is the keeper's business.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter

from htlease import messages as m
from htlease_server.deciding import take
from htlease_server.keeper import Keeper
from htlease_server.logs import note
from htlease_server.store import Conflict, StoreFailed, Uncertain, Unstorable
from htlease_server.tally import CommitTally
from htlease_server.turn import Answer, Crashed, Promise, QueueFull, Waiting

#: How often an idle writer looks whether something is to be done.
IDLE_SECONDS = 0.5
QUEUE_MAX = 5_000
#: Commands decided in one transaction; what more is waiting comes next.
BATCH_MAX = 1_000
RETRY_AFTER_SECONDS = 2.0
#: How often a turn is taken when other servers over the same store are faster.
_TRIES = 10
#: A commit that takes longer is worth a line in the log.
_SLOW_SECONDS = 1.0


class Ledger:
    """The writer thread and its queue. `submit` is for the event loop's thread only."""

    def __init__(
        self, keeper: Keeper, clock: Callable[[], float], *, queue_max: int = QUEUE_MAX
    ) -> None:
        self.keeper = keeper
        self._queue_max = queue_max
        self._queue: deque[Waiting] = deque()
        self._wake = threading.Event()
        self._is_wake_due = False
        self._is_stopping = False
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
        self.keeper.close()

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
            self._wake.wait(IDLE_SECONDS)
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

    def _take_turn(self, requests: Sequence[Waiting], is_last: bool = False) -> None:
        tries_left = _TRIES
        while True:
            tries_left -= 1
            try:
                self._try_turn(requests, is_last)
            except Conflict as problem:
                if tries_left:
                    continue
                self._refuse(requests, problem)
            except Unstorable as problem:
                if len(requests) > 1:  # one of them is to blame, and the others are to go on
                    for waiting in requests:
                        self._take_turn([waiting])
                    return
                note(logging.ERROR, "a request cannot be stored", why=str(problem))
                self._answer((waiting, Crashed()) for waiting in requests)
            except StoreFailed as problem:
                self._refuse(requests, problem)
            except (
                Exception
            ) as problem:  # a mistake of ours; the thread has to live on all the same
                note(logging.ERROR, "writing a batch failed", trace=True, requests=len(requests))
                self._refuse(requests, StoreFailed(f"the batch could not be written: {problem!r}"))
            return

    def _try_turn(self, requests: Sequence[Waiting], is_last: bool) -> None:
        keeper = self.keeper
        turn = keeper.open(requests, is_last)
        try:
            for waiting in requests:
                take(turn, keeper, waiting)
            self._answer(turn.early)
            started = perf_counter()
            if keeper.commit(turn):
                self._note_commit(len(requests), perf_counter() - started)
        except BaseException:
            keeper.undo(turn)
            raise
        finally:
            keeper.cache.shrink()
        self._answer(turn.late)

    def _note_commit(self, requests: int, seconds: float) -> None:
        self.commits.wrote(requests, seconds)
        if self.failure:
            note(logging.WARNING, "the store takes writes again")
            self.failure = None
        if seconds > _SLOW_SECONDS:
            took = round(seconds, 3)
            note(logging.WARNING, "a commit was slow", requests=requests, duration_seconds=took)

    def _refuse(self, requests: Sequence[Waiting], problem: StoreFailed) -> None:
        """Tell everybody in a batch that has failed, but for those who have their answer."""
        if self.failure is None:
            note(logging.ERROR, "the store takes no writes", why=str(problem))
        self.commits.failed += 1
        self.failure = str(problem)
        what = (
            "it is not known whether it was done"
            if isinstance(problem, Uncertain)
            else ("nothing was changed")
        )
        refused = m.Rejection(
            "overloaded",
            f"{what}: {problem}; send it again",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )
        self._answer((waiting, refused) for waiting in requests)

    def _answer(self, answers: Iterable[tuple[Waiting, Answer]]) -> None:
        pairs = [(waiting.future, answer) for waiting, answer in answers]
        if pairs:
            try:
                pairs[0][0].get_loop().call_soon_threadsafe(_resolve, pairs)
            except RuntimeError:
                note(logging.WARNING, "requests were answered too late", requests=len(pairs))


def _resolve(pairs: list[tuple[Promise, Answer]]) -> None:
    for future, answer in pairs:
        if not future.done():  # it has its answer, or its client has gone
            future.set_result(answer)
