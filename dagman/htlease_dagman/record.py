"""A note for each node of what its script has done, kept locked while a script is at work.

It lies beside the DAG. DAGMan starts scripts again after a crash, while those before may still
run: the lock tells whether one does, the note what it had come to. A lease cannot do that alone,
since none is given for a subjob that is closed, and the user's own script may still have to run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True)
class Note:
    """What one script has come to in one try of its node."""

    try_id: str
    #: Of the lease that is held now, for whoever goes on after a crash.
    nonce: str | None = field(default=None, repr=False)
    #: How often the script was put off.
    deferrals: int = 0
    #: Exit status of the user's own script, once it has run.
    chained: int | None = None
    #: Exit status of ours, once all is done.
    exit: int | None = None


class Busy(Exception):
    """Another script of this kind is at work on the node."""


class Record:
    """The open, locked note of one node; closing it, or dying, lets others at it."""

    def __init__(self, path: Path, try_id: str) -> None:
        """Open the note; raises Busy, or OSError when the folder cannot be used."""
        path.parent.mkdir(exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        #: Whether a nonce in the note belongs to nobody who is alive.
        self.is_alone = True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise Busy from None
        except OSError:
            # A file system without locks: the lease alone keeps others out, where there is one.
            self.is_alone = False
        found = _note_from(os.pread(self._descriptor, 1 << 16, 0))
        self.note = found if found and found.try_id == try_id else Note(try_id)

    def save(self, **changes: object) -> None:
        """Change the note."""
        self.note = replace(self.note, **changes)  # type: ignore[arg-type]
        # One line, written before the rest is cut off: a crash leaves the old note or the new.
        line = json.dumps(asdict(self.note)).encode() + b"\n"
        os.pwrite(self._descriptor, line, 0)
        os.ftruncate(self._descriptor, len(line))

    def close(self) -> None:
        """Unlock."""
        os.close(self._descriptor)

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_note(path: Path) -> Note | None:
    """Return a note as it stands, of whatever try, without locking it."""
    with contextlib.suppress(OSError):
        return _note_from(path.read_bytes())
    return None


def _note_from(data: bytes) -> Note | None:
    try:
        return Note(**json.loads(data.partition(b"\n")[0]))
    except (ValueError, TypeError):
        return None
