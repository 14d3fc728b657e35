"""The writer of a server, whatever its store: takes commands, decides them in order, answers.

Every rule about leases is in `htlease.rules.acquire`, what a command meets and leaves in
`execute`. Two writers: `group_commit` for a store of its own, `shared_commit` for
one that other servers write to.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping

from htlease.rules import messages as m
from htlease_server.counters import CommitCounters
from htlease_server.engine.batch import Answer, PendingRequest
from htlease_server.engine.commit.priority_queue import PriorityQueue
from htlease_server.engine.states.state_source import StateSource
from htlease_server.logs import note
from htlease_server.store.base import CommitOutcomeUnknown, Displaced, StoreFailed

#: How often an idle writer looks whether something is to be done.
IDLE_SECONDS = 0.5
#: Commands decided in one transaction; what more is waiting comes next.
BATCH_MAX = 1_000
RETRY_AFTER_SECONDS = 2.0
#: A commit that takes longer is worth a line in the log.
_SLOW_SECONDS = 1.0


class StoreWriter(ABC):
    """What the application sees of a writer; for the event loop's thread only."""

    def __init__(
        self, states: StateSource, clock: Callable[[], float], queue: PriorityQueue
    ) -> None:
        self.states = states
        self._queue = queue
        #: Why the store refused the last batch, or None when it took it.
        self.failure: str | None = None
        #: Set once the store is another server's; nothing is answered any more.
        self.displaced: Displaced | None = None
        self.commits = CommitCounters(clock)

    @abstractmethod
    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start to take requests that arrive in an event loop."""

    @abstractmethod
    def stop(self) -> None:
        """Answer what is queued, write what is not on the disk yet, and let go of the store."""

    @property
    @abstractmethod
    def is_alive(self) -> bool:
        """Whether the writer works."""

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return self._queue.waiting + self._queue.parked

    @property
    def refused(self) -> Mapping[str, int]:
        """How many requests of each kind found the queue full."""
        return self._queue.refused

    @abstractmethod
    def submit(self, pending: PendingRequest) -> None:
        """Queue a request; its future gets the answer. Raises QueueFull."""

    def _note_commit(self, requests: int, seconds: float) -> None:
        self.commits.wrote(requests, seconds)
        if self.failure:
            note(logging.WARNING, "the store takes writes again")
            self.failure = None
        if seconds > _SLOW_SECONDS:
            took = round(seconds, 3)
            note(logging.WARNING, "a commit was slow", requests=requests, duration_seconds=took)

    def _refusal(self, problem: StoreFailed) -> m.Rejection:
        """Take note that the store refused a batch; return what to tell whoever is in it."""
        if self.failure is None:
            note(logging.ERROR, "the store takes no writes", why=str(problem))
        self.commits.failed += 1
        self.failure = str(problem)
        if isinstance(problem, CommitOutcomeUnknown):
            code, what = "outcome-unknown", "it is not known whether it was done"
            advice = "send it again under the same request ID"
        else:
            code, what, advice = "overloaded", "nothing was changed", "send it again"
        return m.Rejection(
            code, f"{what}: {problem}; {advice}", retry_after_seconds=RETRY_AFTER_SECONDS
        )


def resolve(answers: Iterable[tuple[PendingRequest, Answer]]) -> None:
    """Give answers to whoever still waits for them; in the event loop.

    What goes wrong with one recipient is logged, and keeps no other from its answer.
    """
    for pending, answer in answers:
        try:
            if not pending.future.done():  # it has its answer, or its client has gone
                pending.future.set_result(answer)
        except Exception:
            note(logging.ERROR, "giving an answer failed", trace=True, subjob=pending.key)
