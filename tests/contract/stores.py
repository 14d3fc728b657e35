"""The kinds of stores that the contract suite runs on, each as a person would have it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from tests.postgres import Cluster, shared_cluster

from htlease_server.engine.commit.group_commit import GroupCommitWriter
from htlease_server.engine.commit.priority_queue import PriorityQueue
from htlease_server.engine.commit.shared_commit import SharedStoreWriter
from htlease_server.engine.commit.store_writer import StoreWriter
from htlease_server.engine.states.memory_states import InMemoryStates
from htlease_server.engine.states.shared_states import SharedStates
from htlease_server.store.base import StoreFailed, WriteSet
from htlease_server.store.postgresql import connection
from htlease_server.store.postgresql.postgres_store import PostgresStore, Wanted
from htlease_server.store.sqlite.sqlite_store import MIGRATIONS, SqliteStore
from htlease_server.store.sqlite.writer_process import CommitResult, Writer, WriterProcess


class StoreKind(Protocol):
    """What the suite needs to know of one kind of store; a store belongs to a folder."""

    #: How many migrations there are, and SQL that makes a store look as if there were one more.
    version: int
    make_newer: str

    def open(self, folder: Path) -> Any:
        """Open the store of a folder."""

    def store_writer(
        self, store: Any, clock: Callable[[], float], queue: PriorityQueue, **limits: Any
    ) -> StoreWriter:
        """Return the writer that a server would have, with its state source."""

    def write(self, store: Any, write_set: WriteSet) -> None:
        """Write a batch as a batch does."""

    def set_clock(self, folder: Path, now: float) -> None:
        """Move the clock of the store, if it has one of its own."""

    def tamper(self, folder: Path, sql: str) -> None:
        """Run SQL past the store, as a person with a database client would."""


class RefusingStore:
    """A real store whose writes fail while `is_full`."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.is_full = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def write(self, write_set: WriteSet, *how: Any) -> None:
        if self.is_full:
            raise StoreFailed("store x: database or disk is full")
        self._store.write(write_set, *how)


class WriterAtOnce:
    """Writes in this process, for stores that a test has made to fail."""

    is_alive = True

    def __init__(self, store: Any) -> None:
        self._store = store
        self._written: list[CommitResult] = []

    def start(
        self, loop: asyncio.AbstractEventLoop, on_written: Callable[[CommitResult], None]
    ) -> None:
        self._loop, self._on_written = loop, on_written

    def put(self, write_set: WriteSet) -> None:
        problem = None
        try:
            self._store.write(write_set)
        except StoreFailed as met:
            problem = met
        self._written.append(CommitResult(problem, 0.0))
        if not self._loop.is_closed():
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        if self._written:
            self._on_written(self._written.pop())

    def wait(self) -> CommitResult:
        return self._written.pop()

    def close(self) -> None:
        self.is_alive = False


class SqliteKind:
    """One file, one server."""

    version = len(MIGRATIONS)
    make_newer = f"PRAGMA user_version = {version + 1}"

    def open(self, folder: Path) -> SqliteStore:
        return SqliteStore(folder / "store.sqlite3")

    def store_writer(
        self, store: Any, clock: Callable[[], float], queue: PriorityQueue, **limits: Any
    ) -> StoreWriter:
        states = InMemoryStates(store, clock, **limits)
        writer: Writer = (
            WriterProcess(store.path, store.file.id, states.started_at)
            if isinstance(store, SqliteStore)
            else WriterAtOnce(store)
        )
        return GroupCommitWriter(states, clock, queue, writer)

    def write(self, store: Any, write_set: WriteSet) -> None:
        store.write(write_set)

    def set_clock(self, folder: Path, now: float) -> None:
        pass

    def tamper(self, folder: Path, sql: str) -> None:
        db = sqlite3.connect(folder / "store.sqlite3")
        with db:
            db.executescript(sql)
        db.close()


class PostgresKind:
    """A database, any number of servers; its clock is a table."""

    version = len(connection.MIGRATIONS)
    make_newer = "UPDATE schema_version SET version = version + 1"

    def __init__(self, cluster: Callable[[], Cluster] = shared_cluster) -> None:
        self.cluster = cluster
        self._clocks: dict[str, psycopg.Connection[Any]] = {}

    def url(self, folder: Path) -> str:
        """Return the URL of the folder's database."""
        name_file = folder / "database"
        if not name_file.exists():
            name_file.write_text(self.cluster().new_database())
        return self.cluster().url(name_file.read_text())

    def open(self, folder: Path) -> PostgresStore:
        return PostgresStore(self.url(folder), "(SELECT at FROM test_clock)")

    def store_writer(
        self, store: Any, clock: Callable[[], float], queue: PriorityQueue, **limits: Any
    ) -> StoreWriter:
        return SharedStoreWriter(SharedStates(store, **limits), clock, queue)

    def write(self, store: Any, write_set: WriteSet) -> None:
        store.open(Wanted())
        store.write(write_set)

    def set_clock(self, folder: Path, now: float) -> None:
        url = self.url(folder)
        clock = self._clocks.get(url)
        if clock is None:
            for other in self._clocks.values():
                other.close()
            self._clocks.clear()
            clock = self._clocks[url] = psycopg.connect(url, autocommit=True)
            clock.execute("SET client_min_messages = warning")
            clock.execute("CREATE TABLE IF NOT EXISTS test_clock (at float8 NOT NULL)")
            clock.execute("INSERT INTO test_clock SELECT 0 WHERE NOT EXISTS (TABLE test_clock)")
        try:
            clock.execute("UPDATE test_clock SET at = %s", (now,))
        except psycopg.OperationalError:  # the database was away since
            del self._clocks[url]
            self.set_clock(folder, now)

    def tamper(self, folder: Path, sql: str) -> None:
        with psycopg.connect(self.url(folder)) as db:
            db.execute(sql.encode())


STORES: dict[str, StoreKind] = {"sqlite": SqliteKind(), "postgresql": PostgresKind()}
EXCLUSIVE = {name: kind for name, kind in STORES.items() if isinstance(kind, SqliteKind)}
SHARED = {name: kind for name, kind in STORES.items() if isinstance(kind, PostgresKind)}
only_exclusive = pytest.mark.parametrize("kind", EXCLUSIVE.values(), ids=EXCLUSIVE)
only_shared = pytest.mark.parametrize("kind", SHARED.values(), ids=SHARED)
