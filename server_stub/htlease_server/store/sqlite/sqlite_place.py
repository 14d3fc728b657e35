"""Where a SQLite store says that it is, by which a copy is told from the store that was served.

Copied, restored from a snapshot or brought to another machine, a file is another one than that
which a server began to serve; what was done on that one since is not in it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import NamedTuple

from htlease.errors import BadConfig

_MACHINE_ID = Path("/etc/machine-id")
#: Inode of a store that is a copy by intent; no file has it.
_COPY = "copy"


class Place(NamedTuple):
    """Where a store is; the columns of `store_place`."""

    inode: str
    #: Empty where the machine has no name.
    machine: str
    directory: str
    name: str
    path: str

    @classmethod
    def of(cls, path: Path) -> Place:
        """Return where a file is."""
        inode, directory = path.stat().st_ino, path.parent.stat().st_ino
        return cls(str(inode), _machine(), str(directory), path.name, str(path))


def check_place(db: sqlite3.Connection, here: Place, has_log: bool) -> None:
    """Raise BadConfig when this is not the file that was last served, or not all of it.

    `has_log` tells whether SQLite's log lay beside it.
    """
    row = db.execute(f"SELECT {', '.join(Place._fields)}, is_whole FROM store_place").fetchone()
    if row is None:
        return
    why = why_elsewhere(Place(*row[:-1]), bool(row[-1]), here, has_log)
    if why is not None:
        raise BadConfig(
            f"store {here.path} {why}; run `htlease store fence-off --store sqlite:///{here.path}`,"
            " which shuts out all attempts so far, once nobody serves the other; where nothing was"
            " done on that one since, `htlease store moved` in its place keeps the leases"
        )


def why_elsewhere(before: Place, is_whole: bool, here: Place, has_log: bool) -> str | None:
    """Say why a store is not wholly the one that was last served, or None."""
    if before.inode == _COPY:
        return f"is a copy of {before.path}, which was served since"
    is_machine_same = before.machine == here.machine or not (before.machine and here.machine)
    if before.inode != here.inode or not is_machine_same:
        on = "" if is_machine_same else " on another machine"
        return f"is a copy: it was last served as {before.path}{on}"
    is_moved = (before.directory, before.name) != (here.directory, here.name)
    if is_moved and not (is_whole or has_log):
        return (
            f"was moved from {before.path} after a crash, and its newest writes lie there in"
            f" {before.name}-wal: bring that file too; if it is lost"
        )
    return None


def put_place(db: sqlite3.Connection, here: Place) -> None:
    """Note where a store is that is served from now on."""
    db.execute("INSERT OR REPLACE INTO store_place VALUES (1, ?, ?, ?, ?, ?, 0)", here)


def put_whole(db: sqlite3.Connection, run_started_at: float) -> None:
    """Note that a run has ended in order, unless another has begun."""
    db.execute(
        "UPDATE store_place SET is_whole = 1"
        " WHERE EXISTS (SELECT 1 FROM current_run WHERE started_at = ?)",
        (run_started_at,),
    )


def forget_place(db: sqlite3.Connection) -> None:
    """Let the next server serve a store wherever it is."""
    db.execute("DELETE FROM store_place")


def mark_as_copy(db: sqlite3.Connection) -> None:
    """Note in a copy that it is none to be served, not even in the store's own place."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'store_place'").fetchone():
        db.execute("UPDATE store_place SET inode = ?", (_COPY,))


def _machine() -> str:
    """Return what names this machine and no other, but does not tell its ID."""
    try:
        text = _MACHINE_ID.read_text().strip()
    except OSError:
        return ""
    return hashlib.sha256(f"htlease store {text}".encode()).hexdigest()[:16] if text else ""
