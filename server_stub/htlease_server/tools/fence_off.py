"""Shutting out all that a store may have forgotten, after it came back from the past.

A store restored from a backup does not know the attempts since. Three things could go wrong: its
last holder writes on although later ones came after it; a later one, forgotten, writes under a
fence that is issued again; and whoever compares fences elsewhere sees them go down. So every
lease it knows of ends by a grant that nobody can use, in the history like any other, and every
fence from here on is above the milliseconds since 1970, which no count of grants ever reaches.
"""

from __future__ import annotations

import secrets

from htlease.rules import messages as m
from htlease.rules.attempt import AttemptId, Evidence, Place
from htlease.rules.state import apply
from htlease_server.engine.history import EVENT_NAMES, data_of, state_from
from htlease_server.engine.states.cache import Entry
from htlease_server.store.base import HistoryRow, SubjobRow, WriteSet
from htlease_server.tools.snapshot import StoreSnapshot, Writer

_ACTOR = "store fence-off"
_BATCH_MAX = 1_000


def fence_off(store: Writer, snapshot: StoreSnapshot, now: float, reason: str) -> tuple[int, int]:
    """End every lease and raise the floor; return it and how many leases there were.

    `store` is held by nobody else. Interrupted, it can be run again.
    """
    floor = max(int(now * 1000), snapshot.fence_floor() + 1)
    store.write(WriteSet(fence_floor=floor))
    write_set, ended = WriteSet(at=now), 0
    for row in snapshot.held():
        _end(write_set, row, floor, now, reason)
        ended += 1
        if len(write_set.subjobs) >= _BATCH_MAX:
            store.write(write_set)
            write_set = WriteSet(at=now)
    store.write(write_set)
    return floor, ended


def _end(write_set: WriteSet, row: SubjobRow, floor: int, now: float, reason: str) -> None:
    state = state_from(row.snapshot, row.deadline_at)
    fence = max(floor, state.fence + 1)
    acquired = m.LeaseAcquired(
        fence=fence,
        epoch=max(state.granted_epoch, 1),
        kind="operator",
        attempt_id=str(AttemptId.of("operator", Evidence())),
        attempt_number=state.attempt_number,
        evidence=Evidence(),
        place=Place(),
        host=None,
        nonce_digest=m.nonce_digest(secrets.token_hex(16)),
        ttl_seconds=1.0,
        deadline_at=now,
        why="restored",
        ended_before="superseded",
        plan=None,
    )
    events: tuple[m.Event, ...] = (acquired, m.LeaseAbandoned(fence, reason))
    after = apply(state, events, now)
    entry = Entry(row.id, row.workflow_id, after, row.seq, 0)
    request_id = f"fence-off-{floor}"
    for event in events:
        entry.seq += 1
        name, data = EVENT_NAMES[type(event)], data_of(event)
        write_set.history.append(
            HistoryRow(
                row.id, entry.seq, now, name, fence, _ACTOR, request_id, None, None, None, data
            )
        )
    changed = entry.row(row.name, now)
    write_set.subjobs.append(changed)
    write_set.leases.append((row.id, changed.deadline_at, changed.ttl_seconds))
    write_set.known_ids.append((acquired.attempt_id, row.id))
    write_set.counts[row.workflow_id, row.status] -= 1
    write_set.counts[row.workflow_id, changed.status] += 1
