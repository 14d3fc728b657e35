"""Letting old workflows go, a few subjobs in a batch, so that nobody waits for it.

A workflow goes when all its subjobs are closed and none has been closed or re-opened lately. Its
name, owner, plan and labels stay; its subjobs go with their histories and IDs. A subjob of that
name that comes later is a new one, whose fences begin above all that were deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from htlease_server.engine.history import event_from, ids_in
from htlease_server.store.base import ClosedSubjob, DeletedSubjob, HistoryRow, Reader

#: In one batch; it takes some ten milliseconds.
SUBJOBS_MAX = 200
EVENTS_MAX = 2_000
#: A job may come back from a long queue after a day and ask whether its subjob is complete.
AGE_MIN_SECONDS = 86400.0
AGE_MAX_SECONDS = 3660 * 86400.0


@dataclass(frozen=True)
class Trim:
    """A step of letting one workflow go, unless something has changed in it since `before`."""

    workflow_id: int
    workflow: str
    #: Seconds since 1970.
    before: float


@dataclass(frozen=True)
class Trimmed:
    """What a step came to; after a whole one there may be more to do."""

    subjobs: int
    events: int
    is_done: bool


def chosen(
    reader: Reader, workflow_id: int, rows: Sequence[ClosedSubjob]
) -> Iterator[tuple[ClosedSubjob, DeletedSubjob]]:
    """Yield the first of some subjobs, as many as a batch may delete, with what belongs to them."""
    events = 0
    for row in rows[:SUBJOBS_MAX]:
        history = reader.history(row.id, 0, 1_000_000)
        events += len(history)
        yield row, DeletedSubjob(row.id, workflow_id, _ids_of(row.name, history), len(history))
        if events >= EVENTS_MAX:
            return


def _ids_of(name: str, history: Sequence[HistoryRow]) -> list[str]:
    return sorted({name, *(text for row in history for text in ids_in(event_from(row)))})
