"""From the URL of a store to what is done with it as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from htlease.errors import BadConfig
from htlease_server.sqlite import MIGRATIONS, SqliteStore, path_of
from htlease_server.upkeep import sqlite_copy
from htlease_server.upkeep.archive import Tail, read_archive
from htlease_server.upkeep.sqlite_whole import SqliteWhole
from htlease_server.upkeep.whole import Whole


def open_whole(url: str) -> Whole:
    """Return everything in a store as it is now; raises BadConfig."""
    return SqliteWhole(path_of(url))


@contextmanager
def alone(url: str) -> Iterator[None]:
    """Keep servers off a store meanwhile; raises BadConfig when one runs."""
    path = _existing(path_of(url))
    lock = SqliteStore.lock(path)
    try:
        yield
    finally:
        os.close(lock)


def migrate(url: str) -> str:
    """Bring a store to this schema and say so; raises BadConfig."""
    SqliteStore(_existing(path_of(url))).close()
    return f"schema version {len(MIGRATIONS)}"


def shut_out(url: str, reason: str) -> tuple[int, int]:
    """End every lease and raise all fences; return the floor and how many leases there were."""
    return sqlite_copy.shut_out(path_of(url), reason)


def fill(url: str, source: Path) -> Tail:
    """Make a store from an archive; raises BadConfig when there is one already."""
    path = path_of(url)
    if path.exists():
        raise BadConfig(f"store {path} exists; import into one that does not, or move it away")
    lock = SqliteStore.lock(path)
    try:
        partial = path.with_name(path.name + ".partial")
        sqlite_copy.remove(partial)
        store = SqliteStore(partial)
        try:
            tail = read_archive(source, store)
        except BaseException:
            store.close()
            sqlite_copy.remove(partial)
            raise
        store.close()
        sqlite_copy.put_in_place(partial, path)
        os.ftruncate(lock, 0)
    finally:
        os.close(lock)
    return tail


def sqlite_path(url: str, command: str) -> Path:
    """Return the file of a SQLite store; raises BadConfig for another one."""
    if not url.startswith("sqlite:"):
        raise BadConfig(
            f"`htlease store {command}` is for SQLite; use your database's own means, and run"
            " `htlease store fence-off` after it came back from the past"
        )
    return path_of(url)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise BadConfig(f"store {path} does not exist; name another with --store")
    return path
