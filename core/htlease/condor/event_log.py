"""Reads one job's events out of an event log that may be large, shared, cut short or hostile."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from htlease.rules.end_proof import LogEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: Of a larger log only so much of its end is read; what proves an end stands there.
READ_MAX_BYTES = 512 << 20
_CHUNK_BYTES = 4 << 20
#: Of one entry; the longest carry a whole job ad.
_ENTRY_MAX_BYTES = 1 << 20
_END = b"\n...\n"
_REQUEUED = b"Job terminated and was requeued"


def read_events(path: str, job: str) -> list[LogEvent]:
    """Return the events of a job (`12.0`) in a log of HTCondor's usual format, oldest first.

    A log in XML or JSON has none for this reader. An entry that is still being written is left
    out. Raises OSError, also for what is no regular file.
    """
    descriptor = _open(path)
    try:
        return _read(descriptor, path, job)
    finally:
        os.close(descriptor)


def read_rotated(path: str, job: str) -> list[LogEvent]:
    """Return the same of a log and what it was rotated to (`EVENT_LOG`); raises OSError.

    From the newest file backwards, so that a rotation meanwhile leaves no gap between two; all of
    them, since an older one may have another job of the same number.
    """
    found: list[LogEvent] = []
    seen: set[tuple[int, int]] = set()
    for name in _rotations(path):
        try:
            descriptor = _open(name)
        except FileNotFoundError:
            break
        try:
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                found = _read(descriptor, name, job) + found
        finally:
            os.close(descriptor)
    return found


def _rotations(path: str) -> Iterator[str]:
    """Yield a log's name and those of its rotations, newest first.

    Source: HTCondor, `WriteUserLog`: `.old` where one is kept, else `.1`, `.2`, ...
    """
    yield path
    if Path(f"{path}.old").exists():
        yield f"{path}.old"
        return
    number = 0
    while True:
        number += 1
        yield f"{path}.{number}"


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)


def _read(descriptor: int, path: str, job: str) -> list[LogEvent]:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is no regular file")
    cluster, _, proc = job.partition(".")
    header = re.compile(rb"(?:\A|\n)(\d{3}) \(%03d\.%03d\." % (int(cluster), int(proc)))
    os.lseek(descriptor, max(0, status.st_size - READ_MAX_BYTES), os.SEEK_SET)
    found: list[LogEvent] = []
    # Ends where the file ended at first, however fast it grows.
    left_bytes, rest = min(status.st_size, READ_MAX_BYTES), b"\n"
    while left_bytes > 0:
        chunk = os.read(descriptor, min(_CHUNK_BYTES, left_bytes))
        if not chunk:
            break
        left_bytes -= len(chunk)
        whole, end, rest = (rest + chunk).rpartition(_END)
        found += _events(whole + end, header)
        # The line break before the next entry's header.
        rest = (b"\n" if end else b"") + (rest if len(rest) <= _ENTRY_MAX_BYTES else b"")
    return found


def _events(text: bytes, header: re.Pattern[bytes]) -> Iterator[LogEvent]:
    """Yield a job's events in whole entries."""
    for entry in header.finditer(text):
        number = int(entry[1])
        body = text[entry.end() : text.find(_END, entry.end())]
        yield LogEvent(number, number == 4 and _REQUEUED in body)
