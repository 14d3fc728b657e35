"""`htlease store check`: does a store hold together, and does its history say what it says?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from htlease.rules import messages as m
from htlease.rules.state import REQUESTS_KEPT, SubjobState, replace
from htlease_server.engine.history import event_from, fingerprint_of, fold, ids_in, snapshot_from
from htlease_server.tools.snapshot import StoreSnapshot, SubjobRecord

_DAMAGED = "the file is damaged: stop the server and restore a backup"
_ODD = "look at its history, and settle or cancel it by hand; then report this as a mistake"
_COUNTS = "lists show wrong numbers, leases are not concerned; `export` and `import` count anew"


class Finding(NamedTuple):
    """Something that is not as it should be."""

    #: The subjob `workflow/name`, or the store.
    where: str
    what: str
    #: What to do about it.
    advice: str


class Checked:
    """What has been looked at so far."""

    def __init__(self) -> None:
        self.workflows = 0
        self.subjobs = 0
        self.events = 0


def check(snapshot: StoreSnapshot, checked: Checked, is_quick: bool = False) -> Iterator[Finding]:
    """Yield what is wrong with a store; quickly: without every page and every index."""
    is_damaged = False
    for text in snapshot.damage(is_quick):
        is_damaged = True
        yield Finding("store", text, _DAMAGED)
    if is_damaged:
        return  # what the rows of such a file say is no finding, if they can be read at all
    names = {row.id: row.name for row in snapshot.workflows()}
    checked.workflows = len(names)
    counts: Counter[tuple[int, str]] = Counter()
    for subjob_record in snapshot.subjob_records():
        checked.subjobs += 1
        checked.events += len(subjob_record.history)
        counts[subjob_record.subjob.workflow_id, subjob_record.subjob.status] += 1
        where = f"{names.get(subjob_record.subjob.workflow_id, '?')}/{subjob_record.subjob.name}"
        for what in _odd_in(subjob_record, snapshot):
            yield Finding(where, what, _ODD)
    stored = snapshot.counts()
    for workflow_id, status in sorted(counts.keys() | stored.keys()):
        true, said = counts[workflow_id, status], stored.get((workflow_id, status), 0)
        if true != said:
            what = f"{said} subjobs are said to be {status}; there are {true}"
            yield Finding(names.get(workflow_id, "store"), what, _COUNTS)


def _odd_in(subjob_record: SubjobRecord, snapshot: StoreSnapshot) -> Iterator[str]:
    row, history = subjob_record
    if [event.seq for event in history] != list(range(1, row.seq + 1)):
        yield f"its history has {len(history)} events with gaps; the last should be {row.seq}"
        return
    try:
        stored, fingerprints = snapshot_from(row.snapshot, row.deadline_at)
        events = [event_from(event) for event in history]
        told = fold(history)
    except (msgspec.MsgspecError, AssertionError, KeyError) as problem:
        yield f"its record cannot be read: {problem}"
        return
    fence = 0
    for event in events:
        if isinstance(event, m.LeaseAcquired):
            if event.fence <= fence:
                yield f"fence {event.fence} was granted after fence {fence}"
            fence = event.fence
    if _comparable(told) != _comparable(stored):
        yield "its history tells of another state than the one stored"
    shown = (stored.status.value, stored.fence, stored.current_phase, stored.attempt_number)
    if shown != (row.status, row.fence, row.phase, row.attempt_number):
        yield "what lists show of it is not its state"
    accepted = [event.request_id for event in history if event.digest is not None]
    if fingerprints is not None and any(
        fingerprint_of(id) not in fingerprints for id in accepted[-REQUESTS_KEPT:]
    ):
        yield "a request that it accepted would not be recognised"
    for id_text in {row.name, *(id_text for event in events for id_text in ids_in(event))}:
        if not snapshot.is_known_as(row.id, id_text):
            yield f"it cannot be found by {id_text}"


def _comparable(state: SubjobState) -> SubjobState:
    """Leave out what a history does not keep: renewed deadlines and the text of details."""
    phases = {name: replace(record, details=None) for name, record in state.phases.items()}
    return replace(state, deadline_at=0.0, details=None, phases=phases)
