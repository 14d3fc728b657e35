"""The server's clock, and what its downtimes do to deadlines (rule 8)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from htlease.rules.state import HELD, SubjobState, extended_deadline
from htlease_server.store.base import MaintenanceRow, Run


def steady_clock() -> Callable[[], float]:
    """Return a clock in seconds since 1970 that is read off the wall once and then only advances.

    A step of the wall clock would end leases early, or keep them for as long as it went back.
    """
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


class DowntimeCorrection:
    """The times in which a lease could not, or should not, be renewed, and what they do to it.

    They are the gaps in which no server answered, and the maintenance windows that have begun.

    Nothing is swept, and nothing happens when a window begins: a deadline is corrected whenever
    it is read from the store, and once there are windows, whenever somebody asks.

    A stored deadline is what a grant or renewal made it, its ttl after that instant. The first gap
    after that gives it one ttl of uptime from the gap's end, for the holder to renew. A holder that
    is heard no more in that time is gone: later gaps only take no uptime from it, so that servers
    that start again and again keep no dead holder's lease. This takes that the first renewal of
    a lease in each run is on the disk before its answer (`Entry.is_heard`).
    """

    def __init__(self, runs: Iterable[Run], windows: Iterable[MaintenanceRow] = ()) -> None:
        """Take the runs, oldest first and the current one last, and the maintenance windows."""
        self._gaps = [
            (before.alive_at, after.started_at) for before, after in itertools.pairwise(runs)
        ]
        #: A deadline later than this by its ttl was written after the last gap.
        self.answered_from = max((started_at for _, started_at in self._gaps), default=0.0)
        #: The maintenance windows, announced and withdrawn ones too; replaced as a whole, so that
        #: others may read meanwhile.
        self.windows = tuple(windows)

    def deadline(self, deadline_at: float, ttl_seconds: float, now: float) -> float:
        """Return the true deadline of a held lease from the stored one."""
        begun = self._begun(now) if self.windows else ()
        settled_from = max([self.answered_from, *(until_at for _, until_at in begun)])
        if deadline_at < settled_from + ttl_seconds:
            deadline_at = self._after(deadline_at, ttl_seconds, begun)
        # No lease ends later than that, unless the wall clock went back between two runs.
        return min(deadline_at, now + ttl_seconds)

    def _after(
        self, deadline_at: float, ttl_seconds: float, begun: Iterable[tuple[float, float]]
    ) -> float:
        renewed_at = deadline_at - ttl_seconds
        gaps = [(*gap, True) for gap in self._gaps if gap[1] > renewed_at]
        has_restarted, kept_until = False, 0.0
        # Those that are over count too: a lease that one has kept may have met the next.
        for begin, end, is_gap in sorted([*gaps, *((*window, False) for window in begun)]):
            if deadline_at <= begin:
                continue  # it had run out, while somebody was there to hear its holder
            if is_gap and has_restarted:
                deadline_at += max(0.0, end - max(begin, kept_until))
            else:
                deadline_at = extended_deadline(deadline_at, ttl_seconds, begin, end)
                has_restarted |= is_gap
            kept_until = max(kept_until, end)
        return deadline_at

    def is_heard(self, deadline_at: float, ttl_seconds: float) -> bool:
        """Tell of a stored deadline whether its holder was heard since the last gap."""
        return deadline_at - ttl_seconds >= self.answered_from

    def correct(self, state: SubjobState, now: float) -> SubjobState:
        """Return the true state of one that was read from the store."""
        if state.status not in HELD or state.holder is None:
            return state
        return _until(state, self.deadline(state.deadline_at, state.holder.ttl_seconds, now))

    def keep(self, state: SubjobState, now: float) -> SubjobState:
        """Return a corrected state as it is now: another window may have begun since."""
        if not self.windows or state.status not in HELD or state.holder is None:
            return state
        deadline_at, ttl_seconds = state.deadline_at, state.holder.ttl_seconds
        for begin, end in sorted(self._begun(now)):
            deadline_at = extended_deadline(deadline_at, ttl_seconds, begin, end)
        return _until(state, min(deadline_at, now + ttl_seconds))

    def _begun(self, now: float) -> list[tuple[float, float]]:
        return [
            (window.started_at, window.until_at)
            for window in self.windows
            if window.started_at <= min(now, window.until_at)
        ]


def _until(state: SubjobState, deadline_at: float) -> SubjobState:
    return state if deadline_at == state.deadline_at else replace(state, deadline_at=deadline_at)
