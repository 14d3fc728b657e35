"""The store that `--store` names, opened, with the writer and the state source that fit it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from htlease.errors import BadConfig
from htlease_server.engine.commit.group_commit import GroupCommitWriter
from htlease_server.engine.commit.priority_queue import PriorityQueue
from htlease_server.engine.commit.shared_commit import SharedStoreWriter
from htlease_server.engine.commit.store_writer import StoreWriter
from htlease_server.engine.states.memory_states import InMemoryStates
from htlease_server.store.sqlite.sqlite_store import SqliteStore, path_of
from htlease_server.store.sqlite.writer_process import WriterProcess

_POSTGRESQL = ("postgresql://", "postgres://")


def open_store_writer(url: str | None, state_dir: Path, clock: Callable[[], float]) -> StoreWriter:
    """Open a store, by default a file in the state directory; raises BadConfig.

    `clock` counts for a store of our own; the servers over one database take the database's.
    """
    if url is not None and is_postgresql(url):
        try:
            from htlease_server.engine.states.shared_states import SharedStates
            from htlease_server.store.postgresql.postgres_store import PostgresStore
        except ImportError as problem:
            raise not_installed(problem) from None
        return SharedStoreWriter(SharedStates(PostgresStore(url)), clock, PriorityQueue())
    path = path_of(url) if url else state_dir / "htlease.sqlite3"
    make_directory(path.parent)
    store = SqliteStore(path)
    states = InMemoryStates(store, clock)
    writer = WriterProcess(store.path, store.file.id, states.started_at)
    return GroupCommitWriter(states, clock, PriorityQueue(), writer)


def is_postgresql(url: str) -> bool:
    """Tell whether a URL names a PostgreSQL database."""
    return url.startswith(_POSTGRESQL)


def make_directory(directory: Path) -> None:
    """Make a directory for files of the server, open to nobody else; raises BadConfig."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as problem:
        raise BadConfig(
            f"directory {directory} cannot be made: {problem.strerror}; set XDG_STATE_HOME, or"
            " name files with --store and --admin-token-file"
        ) from problem


def not_installed(problem: ImportError) -> BadConfig:
    """Return how to install what PostgreSQL needs."""
    return BadConfig(
        f"--store names PostgreSQL, and what it needs is not installed ({problem.name});"
        " install it with `pip install 'htlease[server,postgres]'`"
    )
