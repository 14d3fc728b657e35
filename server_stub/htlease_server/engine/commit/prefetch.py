"""Reads subjobs beside the event loop that nobody has touched for long, where the disk is slow.

A subjob that is not in memory lies on four pages or five. On a quick disk the event loop reads them
in less time than it takes to wake a thread; on a slow one everybody else would wait meanwhile. So
once look-ups have been slow, requests for subjobs that are not in memory are parked for a while,
until a thread has read what they are about. Then they are decided as ever, and the look-up finds
it in the memory of the kernel: whatever has changed in between, it sees.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from resource import RUSAGE_THREAD, getrusage
from time import monotonic

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.state import REQUESTS_KEPT
from htlease_server.engine.batch import PendingRequest
from htlease_server.engine.execute import is_bare_renewal
from htlease_server.engine.history import snapshot_from
from htlease_server.engine.states.cache import SubjobCache
from htlease_server.store.base import Reader

#: Look-ups are slow that take longer on an average of so many, and read from the disk.
SLOW_SECONDS = 0.0015
_AVERAGE_OF = 16
#: For so long after that requests of their kind are parked.
PARKED_SECONDS = 10.0
#: Disks answer several reads at once sooner than one after the other.
_THREADS = 4


def blocks_read() -> int:
    """Return how much this thread has had to read from a disk."""
    return getrusage(RUSAGE_THREAD).ru_inblock


class Prefetcher:
    """Reads what parked requests are about; for the event loop's thread."""

    def __init__(
        self,
        connect: Callable[[], Reader],
        now: Callable[[], float] = monotonic,
        blocks: Callable[[], int] = blocks_read,
    ) -> None:
        self._connect = connect
        self._now = now
        self._blocks = blocks
        self._blocks_before = 0
        #: Whether it is of bare renewals -> how long look-ups take, and until when these requests
        #: are parked. They are many, and what they are about is mostly at hand.
        self._average = {True: 0.0, False: 0.0}
        self._slow_until = {True: 0.0, False: 0.0}
        self._pool = ThreadPoolExecutor(_THREADS, "htlease-prefetch")
        self._local = threading.local()
        self._readers: list[Reader] = []
        #: Whether any request is parked, or should be.
        self.is_awake = False
        #: In the order of their arrival.
        self._parked: dict[SubjobKey, list[PendingRequest]] = {}

    def looked_up(self, pending: PendingRequest, seconds: float) -> None:
        """Take note of how long the event loop has looked for a subjob that there is."""
        kind = is_bare_renewal(pending)
        self._average[kind] += (seconds - self._average[kind]) / _AVERAGE_OF
        if self._average[kind] > SLOW_SECONDS:
            # It may also have been the processor, that others had.
            before, self._blocks_before = self._blocks_before, self._blocks()
            if self._blocks_before != before:
                self._slow_until[kind] = self._now() + PARKED_SECONDS
                self.is_awake = True

    def is_for(self, pending: PendingRequest, cache: SubjobCache) -> bool:
        """Tell whether a request has to wait for the disk, or for one that does."""
        key, now = pending.key, self._now()
        if not self._parked and now >= max(self._slow_until.values()):
            self.is_awake = False
            return False
        if key is None:
            return False
        is_slow = now < self._slow_until[is_bare_renewal(pending)]
        return key in self._parked or (is_slow and key not in cache)

    def prefetch(
        self,
        pending: PendingRequest,
        loop: asyncio.AbstractEventLoop,
        back: Callable[[list[PendingRequest]], None],
    ) -> None:
        """Have a subjob read, then give `back` all requests for it that came meanwhile."""
        key = pending.key
        assert key is not None
        others = self._parked.get(key)
        if others is not None:
            others.append(pending)
            return
        self._parked[key] = [pending]

        def has_been_read() -> None:
            if key in self._parked:
                back(self._parked.pop(key))

        def in_thread() -> None:
            try:
                self._read(key, getattr(pending.sent, "command", None))
            finally:  # what is wrong with the store the event loop will find out
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(has_been_read)

        self._pool.submit(in_thread)

    def close(self) -> list[PendingRequest]:
        """Let go of the store and return what is still parked, when the loop has ended."""
        self._pool.shutdown(cancel_futures=True)
        for reader in self._readers:
            reader.close()
        left = [pending for requests in self._parked.values() for pending in requests]
        self._parked = {}
        return left

    def _read(self, key: SubjobKey, command: object) -> None:
        reader = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._connect()
            self._readers.append(reader)
        row = reader.subjob(key)
        if row is None:
            return
        if snapshot_from(row.snapshot, row.deadline_at)[1] is None:
            reader.requests(row.id, REQUESTS_KEPT)
        if isinstance(command, m.Acquire):
            # Where the writer will insert, whose transaction other writes wait for.
            reader.history(row.id, row.seq, 1)
            if command.global_job_id is not None:
                reader.subjobs_known_as(command.global_job_id, 1)
