"""The server's clock, and what its downtimes do to deadlines (rule 8)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from htlease.subjob import HELD, SubjobState, extended_deadline
from htlease_server.store import MaintenanceRow, Run


def steady_clock() -> Callable[[], float]:
    """Return a clock in seconds since 1970 that is read off the wall once and then only advances.

    A step of the wall clock would end leases early, or keep them for as long as it went back.
    """
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


class Uptime:
    """The times in which a lease could not, or should not, be renewed, and what they do to it.

    They are the gaps in which no server answered, and the maintenance windows that have begun.

    Nothing is swept, and nothing happens when a window begins: a deadline is corrected whenever
    it is read from the store, and once there are windows, whenever somebody asks.
    Correcting one twice, or one that was written after the gap, changes nothing.
    """

    def __init__(self, runs: Iterable[Run], windows: Iterable[MaintenanceRow] = ()) -> None:
        """Take the runs, oldest first and the current one last, and the maintenance windows."""
        self._gaps = [
            (before.alive_at, after.started_at) for before, after in itertools.pairwise(runs)
        ]
        #: A deadline later than this by its ttl was written after the last gap.
        self._answered_from = max((started_at for _, started_at in self._gaps), default=0.0)
        #: The maintenance windows, announced and withdrawn ones too; replaced as a whole, so that
        #: others may read meanwhile.
        self.windows = tuple(windows)

    def deadline(self, deadline_at: float, ttl_seconds: float, now: float) -> float:
        """Return the true deadline of a held lease from the stored one."""
        begun = self._begun(now) if self.windows else ()
        settled_from = max([self._answered_from, *(until_at for _, until_at in begun)])
        if deadline_at < settled_from + ttl_seconds:
            # Those that are over count too: a lease that one has kept may have met the next.
            for last_alive_at, started_at in sorted([*self._gaps, *begun]):
                deadline_at = extended_deadline(deadline_at, ttl_seconds, last_alive_at, started_at)
        # No lease ends later than that, unless the wall clock went back between two runs.
        return min(deadline_at, now + ttl_seconds)

    def correct(self, state: SubjobState, now: float) -> SubjobState:
        """Return a state as it is now: it was read from the store, or time has passed since."""
        if state.status not in HELD or state.holder is None:
            return state
        deadline_at = self.deadline(state.deadline_at, state.holder.ttl_seconds, now)
        return (
            state if deadline_at == state.deadline_at else replace(state, deadline_at=deadline_at)
        )

    def _begun(self, now: float) -> list[tuple[float, float]]:
        return [
            (window.started_at, window.until_at)
            for window in self.windows
            if window.started_at <= min(now, window.until_at)
        ]
