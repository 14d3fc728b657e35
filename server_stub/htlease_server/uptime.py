"""The server's clock, and what its downtimes do to deadlines (rule 8)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from htlease.subjob import HELD, SubjobState, after_downtime, extended_deadline
from htlease_server.store import Run


def steady_clock() -> Callable[[], float]:
    """Return a clock in seconds since 1970 that is read off the wall once and then only advances.

    A step of the wall clock would end leases early, or keep them for as long as it went back.
    """
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


class Uptime:
    """The gaps in which no server answered, and the deadlines that they moved.

    Nothing is swept at the start: a deadline is corrected whenever it is read from the store.
    Correcting one twice, or one that was written after the gap, changes nothing.
    """

    def __init__(self, runs: Iterable[Run], started_at: float) -> None:
        self.run = Run(started_at, started_at)
        self._gaps = [
            (before.alive_at, after.started_at)
            for before, after in itertools.pairwise([*runs, self.run])
        ]

    def deadline(self, deadline_at: float, ttl_seconds: float, now: float) -> float:
        """Return the true deadline of a held lease from the stored one."""
        for last_alive_at, started_at in self._gaps:
            deadline_at = extended_deadline(deadline_at, ttl_seconds, last_alive_at, started_at)
        # No lease ends later than that, unless the wall clock went back between two runs.
        return min(deadline_at, now + ttl_seconds)

    def correct(self, state: SubjobState, now: float) -> SubjobState:
        """Return a state as it should be after it was read from the store."""
        if state.status not in HELD or state.holder is None:
            return state
        latest = now + state.holder.ttl_seconds
        for last_alive_at, started_at in self._gaps:
            state = after_downtime(state, last_alive_at, started_at)
        return state if state.deadline_at <= latest else replace(state, deadline_at=latest)
