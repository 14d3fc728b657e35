"""The queue of a busy server: bounded, and the more urgent a request the sooner its turn.

A holder that cannot renew loses its lease, so renewals come first, then what holders write, then
whoever wants something new. Each kind has room of its own: a flood of one fills no other's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from htlease.rules import messages as m
from htlease_server.engine.batch import PendingRequest, QueueFull
from htlease_server.models.request_models import CommandRequest

RENEWALS_MAX = 20_000
WRITES_MAX = 5_000
#: Requests for something new decided before the server looks for holders again.
NEW_WORK_AT_ONCE = 200

_NEW_WORK = (m.Acquire, m.Enroll)


class PriorityQueue:
    """Pending requests by urgency; for one thread."""

    def __init__(self, renewals_max: int = RENEWALS_MAX, writes_max: int = WRITES_MAX) -> None:
        self._renewals: deque[PendingRequest] = deque()
        self._writes: deque[PendingRequest] = deque()
        self._new_work: deque[PendingRequest] = deque()
        self._renewals_max = renewals_max
        self._writes_max = writes_max
        #: Kind of request -> how many found no room.
        self.refused = {"renewals": 0, "writes": 0, "new-work": 0}
        #: Kind of request -> how many will come later and have their room already.
        self._parked = {"renewals": 0, "writes": 0, "new-work": 0}

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._renewals) + len(self._writes) + len(self._new_work)

    @property
    def parked(self) -> int:
        """How many requests are parked."""
        return sum(self._parked.values())

    def add(self, pending: PendingRequest) -> None:
        """Queue a request; raises QueueFull."""
        _, level = self._with_room(pending)
        level.append(pending)

    def park(self, pending: PendingRequest) -> None:
        """Keep room for a request that cannot be decided yet; raises QueueFull."""
        kind, _ = self._with_room(pending)
        self._parked[kind] += 1

    def unpark(self, pending: PendingRequest) -> None:
        """Queue a request that was parked."""
        kind, level, _ = self._level_of(pending)
        self._parked[kind] -= 1
        level.append(pending)

    def _level_of(self, pending: PendingRequest) -> tuple[str, deque[PendingRequest], int]:
        command_request = pending.sent
        command = command_request.command if isinstance(command_request, CommandRequest) else None
        if isinstance(command, m.Renew):
            return "renewals", self._renewals, self._renewals_max
        if command is None or isinstance(command, _NEW_WORK):
            return "new-work", self._new_work, self._writes_max
        return "writes", self._writes, self._writes_max

    def _with_room(self, pending: PendingRequest) -> tuple[str, deque[PendingRequest]]:
        kind, level, most = self._level_of(pending)
        if len(level) + self._parked[kind] >= most:
            self.refused[kind] += 1
            raise QueueFull(f"{most} requests are waiting already")
        return kind, level

    def next(self, most: int) -> Iterator[PendingRequest]:
        """Yield the requests whose turn it is, the most urgent first."""
        for level, limit in (
            (self._renewals, most),
            (self._writes, most),
            (self._new_work, min(most, NEW_WORK_AT_ONCE)),
        ):
            for _ in range(min(len(level), limit)):
                yield level.popleft()
