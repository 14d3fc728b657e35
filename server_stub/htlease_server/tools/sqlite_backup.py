"""A consistent copy of a SQLite store while a server writes to it, and putting one in its place."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from htlease.errors import BadConfig
from htlease_server.store.sqlite.sqlite_file import Hold, belong_with, refuse_other_names
from htlease_server.store.sqlite.sqlite_place import mark_as_copy
from htlease_server.store.sqlite.sqlite_store import SqliteStore, not_there
from htlease_server.tools.fence_off import fence_off
from htlease_server.tools.sqlite_snapshot import SqliteSnapshot

#: What lies beside a store and belongs to it.
_BESIDE = ("-wal", "-shm")


def back_up(path: Path, target: Path) -> int:
    """Copy the store at an instant to a new file, readable by its owner only; return its size.

    All pages are copied in one step: in between, a write would make SQLite begin again, and under
    load it would never end. The server is not held up; its write-ahead log grows meanwhile.
    """
    if target.exists():
        raise BadConfig(f"{target} exists; name a file that does not")
    if not path.exists():
        raise not_there(path)
    refuse_other_names(path)
    partial = target.with_name(target.name + ".partial")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600))
        source, copy = sqlite3.connect(path), sqlite3.connect(partial)
        try:
            # The copy is a whole without a log beside it, and is not written twice.
            copy.execute("PRAGMA journal_mode = OFF")
            copy.execute("PRAGMA synchronous = OFF")
            source.backup(copy)
            mark_as_copy(copy)
            copy.commit()
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            source.close()
            copy.close()
        _sync(partial)
        partial.rename(target)
        _sync(target.parent)
    except (OSError, sqlite3.Error) as problem:
        partial.unlink(missing_ok=True)
        raise BadConfig(f"store {path} cannot be copied to {target}: {problem}") from problem
    return target.stat().st_size


def restore(backup: Path, path: Path) -> tuple[int, int]:
    """Put a backup in the store's place and shut out all that it does not know.

    What was there is kept as `PATH.before-restore`. Returns the new fence floor and how many leases
    were ended. Raises BadConfig; a server must not run.
    """
    if not backup.exists():
        raise BadConfig(f"backup {backup} does not exist; name a file of `htlease store backup`")
    SqliteSnapshot(backup).close()
    try:
        with closing(Hold(path)) as hold:
            floor_and_ended = _put_back(backup, path, hold)
    except OSError as problem:
        raise BadConfig(f"{backup} cannot be put at {path}: {problem}") from problem
    return floor_and_ended


def _put_back(backup: Path, path: Path, hold: Hold) -> tuple[int, int]:
    partial = path.with_name(path.name + ".partial")
    remove(partial)
    back_up(backup, partial)
    # Before it has its name, so that no server ever starts on it as it was.
    floor_and_ended = fence_off_file(partial, f"restored from {backup.name}")
    for end in ("", *_BESIDE):
        old = path.with_name(path.name + end)
        if old.exists():
            old.rename(path.with_name(f"{path.name}.before-restore{end}"))
    put_in_place(partial, path)
    os.ftruncate(hold.stamp_fd, 0)
    return floor_and_ended


def fence_off_file(path: Path, reason: str) -> tuple[int, int]:
    """End every lease of a store and raise its fences; see `fence_off`. Raises BadConfig."""
    store = SqliteStore(path)
    try:
        snapshot = SqliteSnapshot(path)
        try:
            floor_and_ended = fence_off(store, snapshot, time.time(), reason)
        finally:
            snapshot.close()
        store.accept_the_past()
    finally:
        store.close()
    return floor_and_ended


def put_in_place(partial: Path, path: Path) -> None:
    """Give a closed store its name, durably, and to whom its directory belongs."""
    belong_with(partial, path.parent)
    _sync(partial)
    partial.rename(path)
    partial.with_name(partial.name + ".lock").unlink(missing_ok=True)
    _sync(path.parent)


def remove(path: Path) -> None:
    """Remove a store and what lies beside it."""
    for end in ("", *_BESIDE, ".lock"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
