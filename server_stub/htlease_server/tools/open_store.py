"""From the URL of a store to what is done with it as a whole."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType

from htlease.errors import BadConfig
from htlease_server.engine.open_writer import is_postgresql, not_installed
from htlease_server.store.sqlite.sqlite_file import Hold
from htlease_server.store.sqlite.sqlite_store import MIGRATIONS, SqliteStore, not_there, path_of
from htlease_server.tools import sqlite_backup
from htlease_server.tools.archive import Tail, read_archive
from htlease_server.tools.fence_off import fence_off
from htlease_server.tools.snapshot import StoreSnapshot
from htlease_server.tools.sqlite_snapshot import SqliteSnapshot


def open_snapshot(url: str) -> StoreSnapshot:
    """Return everything in a store as it is now; raises BadConfig."""
    if is_postgresql(url):
        snapshot: StoreSnapshot = _postgres().PostgresSnapshot(url)
        return snapshot
    return SqliteSnapshot(path_of(url))


@contextmanager
def exclusive_lock(url: str) -> Iterator[None]:
    """Keep servers off a store meanwhile, or find that none is there; raises BadConfig."""
    if is_postgresql(url):
        # Nothing keeps one from starting in a database; who moves it does not start one.
        _postgres().PostgresFiller(url).close()
        yield
        return
    with closing(Hold(_existing(path_of(url)))):
        yield


def migrate(url: str) -> str:
    """Bring a store to this schema and say so; raises BadConfig."""
    if is_postgresql(url):
        return f"schema version {_postgres().migrate(url)}"
    SqliteStore(_existing(path_of(url))).close()
    return f"schema version {len(MIGRATIONS)}"


def accept_place(url: str) -> None:
    """Let servers start on a store wherever it is now; raises BadConfig."""
    if is_postgresql(url):
        with closing(_postgres().PostgresFiller(url)) as filler:
            filler.forget_place()
        return
    with closing(SqliteStore(_existing(path_of(url)))) as store:
        store.forget_place()


def fence_off_store(url: str, reason: str) -> tuple[int, int]:
    """End every lease and raise all fences; return the floor and how many leases there were."""
    if not is_postgresql(url):
        return sqlite_backup.fence_off_file(path_of(url), reason)
    with (
        closing(_postgres().PostgresFiller(url)) as filler,
        closing(open_snapshot(url)) as snapshot,
    ):
        floor_and_ended = fence_off(filler, snapshot, time.time(), reason)
        filler.forget_place()
        return floor_and_ended


def fill(url: str, source: Path) -> Tail:
    """Make a store from an archive; raises BadConfig when there is something in it already."""
    return _fill_postgres(url, source) if is_postgresql(url) else _fill_file(path_of(url), source)


def _fill_postgres(url: str, source: Path) -> Tail:
    migrate(url)
    with closing(_postgres().PostgresFiller(url)) as filler:
        if not filler.is_empty():
            raise BadConfig(f"store {filler.name} is not empty; import into a new database")
        with filler.all_or_nothing():
            tail = read_archive(source, filler)
            filler.set_ids()
    return tail


def _fill_file(path: Path, source: Path) -> Tail:
    if path.exists():
        raise BadConfig(f"store {path} exists; import into one that does not, or move it away")
    with closing(Hold(path)) as hold:
        partial = path.with_name(path.name + ".partial")
        sqlite_backup.remove(partial)
        store = SqliteStore(partial)
        try:
            tail = read_archive(source, store)
        except BaseException:
            store.close()
            sqlite_backup.remove(partial)
            raise
        store.close()
        sqlite_backup.put_in_place(partial, path)
        os.ftruncate(hold.stamp_fd, 0)
    return tail


def _postgres() -> ModuleType:
    try:
        from htlease_server.tools import postgres_snapshot
    except ImportError as problem:
        raise not_installed(problem) from None
    return postgres_snapshot


def sqlite_path(url: str, command: str) -> Path:
    """Return the file of a SQLite store; raises BadConfig for another one."""
    if is_postgresql(url):
        raise BadConfig(
            f"`htlease store {command}` is for SQLite; use your database's own means, and run"
            " `htlease store fence-off` after it came back from the past"
        )
    return path_of(url)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise not_there(path)
    return path
