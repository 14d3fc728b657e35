"""A store as a stream of JSON lines, for moving a site to another store and for keeping.

The first line says what it is, the last how much there was, so that half a file is not taken for
a whole one. Rows are as they are in the store, row IDs included. Nonces are in no store, only
their digests; details are, so the file is for its owner only.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from htlease.errors import BadConfig
from htlease.version import VERSION
from htlease_server.store.base import (
    AuditRow,
    FlagRow,
    HistoryRow,
    MaintenanceRow,
    Run,
    SubjobRow,
    WorkflowRow,
    WriteSet,
)
from htlease_server.tools.snapshot import StoreSnapshot, Writer

#: Raised when a line gets another meaning.
FORMAT = 1
_ROWS_IN_BATCH = 1_000

_Row = TypeVar("_Row")


class Head(msgspec.Struct, forbid_unknown_fields=True):
    """What stands at the beginning."""

    format: int
    htlease: str
    store: str
    fence_floor: int


class Tail(msgspec.Struct, forbid_unknown_fields=True):
    """What stands at the end: how many there were."""

    workflows: int = 0
    subjobs: int = 0
    events: int = 0
    known_ids: int = 0
    deeds: int = 0


class Line(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One line; it has the fields of one kind only."""

    head: Head | None = None
    runs: list[Run] = []
    maintenance: list[MaintenanceRow] = []
    flags: list[FlagRow] = []
    workflows: list[WorkflowRow] = []
    subjob: SubjobRow | None = None
    history: list[HistoryRow] = []
    known_ids: list[tuple[str, int]] = []
    deeds: list[AuditRow] = []
    tail: Tail | None = None


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Line)


def write_archive(snapshot: StoreSnapshot, target: Path) -> Tail:
    """Write everything to a new file, mode 0600; raises BadConfig."""
    partial = target.with_name(target.name + ".partial")
    try:
        if target.exists():
            raise BadConfig(f"{target} exists; name a file that does not")
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            tail = _write(snapshot, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(target)
    except OSError as problem:
        partial.unlink(missing_ok=True)
        raise BadConfig(f"{target} cannot be written: {problem.strerror}") from problem
    return tail


def _write(snapshot: StoreSnapshot, file: BinaryIO) -> Tail:
    tail = Tail()

    def put(line: Line) -> None:
        file.write(_encode(line))
        file.write(b"\n")

    put(Line(head=Head(FORMAT, VERSION, snapshot.name, snapshot.fence_floor())))
    windows, flags = list(snapshot.maintenance()), list(snapshot.flags())
    put(Line(runs=list(snapshot.runs()), maintenance=windows, flags=flags))
    for workflows in _in_parts(snapshot.workflows()):
        tail.workflows += len(workflows)
        put(Line(workflows=workflows))
    for subjob, history in snapshot.subjob_records():
        tail.subjobs += 1
        tail.events += len(history)
        put(Line(subjob=subjob, history=list(history)))
    for known_ids in _in_parts(snapshot.known_ids()):
        tail.known_ids += len(known_ids)
        put(Line(known_ids=known_ids))
    for deeds in _in_parts(snapshot.audit_entries()):
        tail.deeds += len(deeds)
        put(Line(deeds=deeds))
    put(Line(tail=tail))
    return tail


def read_archive(source: Path, store: Writer) -> Tail:
    """Write everything from a file into an empty store; raises BadConfig and StoreFailed.

    The last write set makes it complete: a store that was left half filled has no runs.
    """
    counted = Tail()
    held_back = WriteSet()
    with _opened(source) as file:
        lines = _lines(source, file)
        head = next(lines, Line()).head
        if head is None:
            raise BadConfig(f"{source} is not what `htlease store export` writes")
        if head.format != FORMAT:
            raise BadConfig(
                f"{source} has format {head.format}, written by htlease {head.htlease}; this one"
                f" reads format {FORMAT}: upgrade htlease"
            )
        held_back.fence_floor = head.fence_floor
        write_set, tail = WriteSet(), None
        for line in lines:
            held_back.runs += line.runs
            held_back.maintenance += line.maintenance
            held_back.flags += line.flags
            _add(write_set, line, counted)
            tail = line.tail
            if _rows_in(write_set) >= _ROWS_IN_BATCH:
                store.write(write_set)
                write_set = WriteSet()
    if tail is None or tail != counted:
        raise BadConfig(f"{source} is not complete: {counted}, and at its end {tail}")
    store.write(write_set)
    store.write(held_back)
    return counted


def _rows_in(write_set: WriteSet) -> int:
    kinds = (write_set.subjobs, write_set.workflows, write_set.known_ids, write_set.audit_entries)
    return sum(len(rows) for rows in kinds)


def _add(write_set: WriteSet, line: Line, counted: Tail) -> None:
    write_set.workflows += line.workflows
    write_set.known_ids += line.known_ids
    write_set.history += line.history
    write_set.audit_entries += line.deeds
    counted.deeds += len(line.deeds)
    counted.workflows += len(line.workflows)
    counted.known_ids += len(line.known_ids)
    counted.events += len(line.history)
    row = line.subjob
    if row is not None:
        counted.subjobs += 1
        write_set.subjobs.append(row)
        write_set.leases.append((row.id, row.deadline_at, row.ttl_seconds))
        write_set.counts[row.workflow_id, row.status] += 1
        write_set.at = max(write_set.at, row.updated_at)


def _opened(source: Path) -> BinaryIO:
    try:
        return source.open("rb")
    except OSError as problem:
        raise BadConfig(f"{source} cannot be read: {problem.strerror}") from problem


def _lines(source: Path, file: BinaryIO) -> Iterator[Line]:
    for number, text in enumerate(file, 1):
        try:
            yield _decoder.decode(text)
        except msgspec.MsgspecError as problem:
            raise BadConfig(f"{source}, line {number}: {problem}; is it complete?") from None


def _in_parts(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    rows = iter(rows)
    while part := list(itertools.islice(rows, _ROWS_IN_BATCH)):
        yield part
