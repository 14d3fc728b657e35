"""The queue of a busy server: bounded, and the more urgent a request the sooner its turn.

A holder that cannot renew loses its lease, so renewals come first, then what holders write, then
whoever wants something new. Each kind has room of its own: a flood of one fills no other's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from htlease.rules import messages as m
from htlease_server.engine.batch import QueueFull, Waiting
from htlease_server.models.request_models import Sent

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
        #: Kind of request -> how many will come later and have their room already.
        self._aside = {"renewals": 0, "writes": 0, "newcomers": 0}

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._renewals) + len(self._writes) + len(self._newcomers)

    @property
    def aside(self) -> int:
        """How many requests stand aside."""
        return sum(self._aside.values())

    def add(self, waiting: Waiting) -> None:
        """Queue a request; raises QueueFull."""
        _, lane = self._with_room(waiting)
        lane.append(waiting)

    def set_aside(self, waiting: Waiting) -> None:
        """Keep room for a request that cannot be decided yet; raises QueueFull."""
        kind, _ = self._with_room(waiting)
        self._aside[kind] += 1

    def take_back(self, waiting: Waiting) -> None:
        """Queue a request that stood aside."""
        kind, lane, _ = self._lane_of(waiting)
        self._aside[kind] -= 1
        lane.append(waiting)

    def _lane_of(self, waiting: Waiting) -> tuple[str, deque[Waiting], int]:
        sent = waiting.sent
        command = sent.command if isinstance(sent, Sent) else None
        if isinstance(command, m.Renew):
            return "renewals", self._renewals, self._renewals_max
        if command is None or isinstance(command, _NEWCOMERS):
            return "newcomers", self._newcomers, self._writes_max
        return "writes", self._writes, self._writes_max

    def _with_room(self, waiting: Waiting) -> tuple[str, deque[Waiting]]:
        kind, lane, most = self._lane_of(waiting)
        if len(lane) + self._aside[kind] >= most:
            self.refused[kind] += 1
            raise QueueFull(f"{most} requests are waiting already")
        return kind, lane

    def next(self, most: int) -> Iterator[Waiting]:
        """Yield the requests whose turn it is, the most urgent first."""
        for lane, limit in (
            (self._renewals, most),
            (self._writes, most),
            (self._newcomers, min(most, NEWCOMERS_AT_ONCE)),
        ):
            for _ in range(min(len(lane), limit)):
                yield lane.popleft()
