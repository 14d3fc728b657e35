"""The kinds of stores that the contract suite runs on, each as a person would have it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from tests.postgres import Cluster, shared_cluster

from htlease_server.exclusive import ExclusiveKeeper
from htlease_server.lanes import Lanes
from htlease_server.ledger import Ledger
from htlease_server.pipeline import Pipeline
from htlease_server.postgresql import connection
from htlease_server.postgresql.keeper import SharedKeeper
from htlease_server.postgresql.store import PostgresStore, Wanted
from htlease_server.sqlite import MIGRATIONS, SqliteStore
from htlease_server.store import Batch
from htlease_server.turns import TurnLedger


class StoreKind(Protocol):
    """What the suite needs to know of one kind of store; a store belongs to a folder."""

    #: How many migrations there are, and SQL that makes a store look as if there were one more.
    version: int
    make_newer: str

    def open(self, folder: Path) -> Any:
        """Open the store of a folder."""

    def ledger(self, store: Any, clock: Callable[[], float], lanes: Lanes, **limits: Any) -> Ledger:
        """Return the ledger that a server would have, with its keeper."""

    def write(self, store: Any, batch: Batch) -> None:
        """Write a batch as a turn does."""

    def set_clock(self, folder: Path, now: float) -> None:
        """Move the clock of the store, if it has one of its own."""

    def tamper(self, folder: Path, sql: str) -> None:
        """Run SQL past the store, as a person with a database client would."""


class SqliteKind:
    """One file, one server."""

    version = len(MIGRATIONS)
    make_newer = f"PRAGMA user_version = {version + 1}"

    def open(self, folder: Path) -> SqliteStore:
        return SqliteStore(folder / "store.sqlite3")

    def ledger(self, store: Any, clock: Callable[[], float], lanes: Lanes, **limits: Any) -> Ledger:
        return Pipeline(ExclusiveKeeper(store, clock, **limits), clock, lanes)

    def write(self, store: Any, batch: Batch) -> None:
        store.write(batch)

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

    def ledger(self, store: Any, clock: Callable[[], float], lanes: Lanes, **limits: Any) -> Ledger:
        return TurnLedger(SharedKeeper(store, **limits), clock, lanes)

    def write(self, store: Any, batch: Batch) -> None:
        store.open(Wanted())
        store.write(batch)

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
