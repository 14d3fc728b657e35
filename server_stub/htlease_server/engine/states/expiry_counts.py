"""How many of a workflow's held leases have run out, for documents that look at few of them.

Nothing happens when a lease runs out, and renewals are too many to keep an index of deadlines for
them. So a document looks itself at no more than `LOOKED_AT_MAX` leases. Of what is larger it
tells what was counted last, and when: page by page, beside all else, once somebody has asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, TypeVar

from htlease.rules.state import HELD, Status
from htlease_server.engine.states.state_source import ReadContext
from htlease_server.logs import note
from htlease_server.store.base import Reader

#: Held leases that are looked at for one document.
LOOKED_AT_MAX = 2_000
#: Held leases of one page of a count, which takes some milliseconds.
_PAGE = 5_000
#: A count rests for so many times what its last page took.
_REST = 4
#: A count is made again after so long, and after so many times what it took.
_GOOD_SECONDS, _GOOD_TIMES = 5.0, 4
#: Workflows whose counts are remembered, and those that wait for one.
_KEPT = 10_000
HELD_NAMES = tuple(status.value for status in HELD)

_T = TypeVar("_T")


class _Run(Protocol):
    def __call__(self, look_up: Callable[[Reader, ReadContext], _T], /) -> Awaitable[_T]: ...


class _Counted(NamedTuple):
    """What was counted of one workflow."""

    #: When it began; each lease was looked at then or later.
    at: float
    good_until: float
    #: Of each stored status, how many had run out.
    lapsed: Counter[str]


class _Page(NamedTuple):
    now: float
    lapsed: Counter[str]
    #: The row ID after which the next one begins; None on the last page.
    last: int | None
    seconds: float


class ExpiryCounts:
    """Counts, in the event loop, what documents have asked for."""

    def __init__(self, run: _Run) -> None:
        """`run` has a look-up made over some reader."""
        self._run = run
        self._counted: OrderedDict[int, _Counted] = OrderedDict()
        self._wanted: dict[int, None] = {}
        self._task: asyncio.Task[None] | None = None

    def snapshot(self, reader: Reader, at: ReadContext) -> CountSnapshot:
        """Return what one document learns of its workflows; for the thread that looks up."""
        return CountSnapshot(self, reader, at)

    def counted(self, workflow_id: int, now: float) -> _Counted | None:
        """Return what was counted last, and want it again when that is old; in any thread."""
        counted = self._counted.get(workflow_id)
        if (counted is None or now >= counted.good_until) and len(self._wanted) < _KEPT:
            self._wanted[workflow_id] = None
        return counted

    def count(self) -> None:
        """Begin to count what is wanted."""
        if self._wanted and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._count_all())

    def close(self) -> None:
        """Count no more."""
        if self._task is not None:
            self._task.cancel()

    async def _count_all(self) -> None:
        try:
            while wanted := list(self._wanted):
                for workflow_id in wanted:
                    self._counted[workflow_id] = await self._count_one(workflow_id)
                    self._counted.move_to_end(workflow_id)
                    del self._wanted[workflow_id]
                while len(self._counted) > _KEPT:
                    self._counted.popitem(last=False)
        except Exception:  # whoever asks next has it tried again
            note(logging.WARNING, "counting lapsed leases failed", trace=True)
            self._wanted.clear()
        finally:
            self._task = None

    async def _count_one(self, workflow_id: int) -> _Counted:
        page = await self._page(workflow_id, 0)
        began, lapsed = page.now, page.lapsed
        while page.last is not None:
            await asyncio.sleep(_REST * page.seconds)
            page = await self._page(workflow_id, page.last)
            lapsed += page.lapsed
        good_seconds = max(_GOOD_SECONDS, _GOOD_TIMES * (page.now - began))
        return _Counted(began, page.now + good_seconds, lapsed)

    def _page(self, workflow_id: int, after: int) -> Awaitable[_Page]:
        def look_up(reader: Reader, at: ReadContext) -> _Page:
            started = time.perf_counter()
            last = reader.nth_held(workflow_id, after, _PAGE)
            lapsed = _lapsed(reader, at, workflow_id, after, last)
            return _Page(at.now, lapsed, last, time.perf_counter() - started)

        return self._run(look_up)


class CountSnapshot:
    """What one document learns of its workflows."""

    def __init__(self, expiry_counts: ExpiryCounts, reader: Reader, at: ReadContext) -> None:
        self._expiry_counts = expiry_counts
        self._reader = reader
        self._at = at
        self._left = LOOKED_AT_MAX

    def counts(self, workflow_id: int) -> tuple[dict[str, int], float | None]:
        """Return how many subjobs have each status, and when the lapsed ones were counted.

        None stands for not yet: then they are among those whose status is held.
        """
        counts = self._reader.counts(workflow_id)
        held = sum(counts.get(name, 0) for name in HELD_NAMES)
        if held <= self._left:
            self._left -= held
            counted_at = self._at.now
            lapsed = _lapsed(self._reader, self._at, workflow_id) if held else Counter()
        else:
            counted = self._expiry_counts.counted(workflow_id, self._at.now)
            if counted is None:
                return counts, None
            counted_at, lapsed = counted.at, counted.lapsed
        return _with_lapsed(counts, lapsed), counted_at


def _lapsed(
    reader: Reader, at: ReadContext, workflow_id: int, after: int = 0, last: int | None = None
) -> Counter[str]:
    return Counter(
        status
        for row_id, status, deadline_at, ttl_seconds in reader.overdue(
            workflow_id, at.now, after, last
        )
        if at.deadline(row_id, deadline_at, ttl_seconds) <= at.now
    )


def _with_lapsed(counts: dict[str, int], lapsed: Counter[str]) -> dict[str, int]:
    total = 0
    for status, number in lapsed.items():
        # Of those counted a while ago some may be held no more.
        known = min(number, counts.get(status, 0))
        total += known
        if known:
            counts[status] -= known
            if not counts[status]:
                del counts[status]
    return {**counts, Status.LAPSED.value: total} if total else counts
