"""The queue of a busy server: bounded, and the more urgent a request the sooner its turn.

A holder that cannot renew loses its lease, so renewals come first, then what holders write, then
whoever wants something new. Each kind has room of its own: a flood of one fills no other's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from htlease import messages as m
from htlease_server.bodies import Sent
from htlease_server.turn import QueueFull, Waiting

RENEWALS_MAX = 20_000
WRITES_MAX = 5_000
#: Of newcomers decided before the server looks for holders again.
NEWCOMERS_AT_ONCE = 200

_NEWCOMERS = (m.Acquire, m.Enroll)


class Lanes:
    """Waiting requests by urgency; for one thread."""

    def __init__(self, renewals_max: int = RENEWALS_MAX, writes_max: int = WRITES_MAX) -> None:
        self._renewals: deque[Waiting] = deque()
        self._writes: deque[Waiting] = deque()
        self._newcomers: deque[Waiting] = deque()
        self._renewals_max = renewals_max
        self._writes_max = writes_max
        #: Kind of request -> how many found its lane full.
        self.refused = {"renewals": 0, "writes": 0, "newcomers": 0}

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._renewals) + len(self._writes) + len(self._newcomers)

    def add(self, waiting: Waiting) -> None:
        """Queue a request; raises QueueFull."""
        sent = waiting.sent
        command = sent.command if isinstance(sent, Sent) else None
        if isinstance(command, m.Renew):
            kind, lane, most = "renewals", self._renewals, self._renewals_max
        elif command is None or isinstance(command, _NEWCOMERS):
            kind, lane, most = "newcomers", self._newcomers, self._writes_max
        else:
            kind, lane, most = "writes", self._writes, self._writes_max
        if len(lane) >= most:
            self.refused[kind] += 1
            raise QueueFull(f"{len(lane)} requests are waiting already")
        lane.append(waiting)

    def next(self, most: int) -> Iterator[Waiting]:
        """Yield the requests whose turn it is, the most urgent first."""
        for lane, limit in (
            (self._renewals, most),
            (self._writes, most),
            (self._newcomers, min(most, NEWCOMERS_AT_ONCE)),
        ):
            for _ in range(min(len(lane), limit)):
                yield lane.popleft()
