"""No look-up of the PostgreSQL store has to read a whole table, however large it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.contract.drill import KEY, Drill, acquire
from tests.contract.stores import STORES, PostgresKind
from tests.contract.test_sqlite_plans import LOOK_UPS

from htlease.rules.attempt import SubjobKey
from htlease_server.store.postgresql.postgres_reader import PostgresReader

_SCAN = re.compile(r"Seq Scan on (\w+)")
#: Tables that stay small; of counts there are a few for each workflow.
SMALL = {"server_run", "maintenance", "fence_floor", "flag", "subjob_count", "test_clock"}
#: What the other store has and this one reads with the batch.
ELSEWHERE = {"next_ids", "fence_floor"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[psycopg.Connection[Any]]:
    """A database with some subjobs."""
    kind = STORES["postgresql"]
    assert isinstance(kind, PostgresKind)
    drill = Drill(kind, tmp_path)
    drill.acquire(KEY)
    for number in range(20):
        drill.ask(acquire(), SubjobKey("run7", f"s-{number}"))
    drill.close()
    with psycopg.connect(kind.url(tmp_path)) as connection:
        yield connection


@pytest.mark.parametrize("name", sorted(set(LOOK_UPS) - ELSEWHERE))
def test_a_look_up_scans_no_table(
    name: str, database: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, tuple[Any, ...]]] = []

    def note(self: PostgresReader, query: str, *given: Any) -> list[Any]:
        asked.append((query, given))
        return []

    monkeypatch.setattr(PostgresReader, "_rows", note)
    LOOK_UPS[name](PostgresReader.__new__(PostgresReader))
    assert asked
    # Tables of twenty rows are read whole whatever there is; so only where no index serves.
    database.execute("SET enable_seqscan = off")
    for query, given in asked:
        explained = database.execute(f"EXPLAIN {query}".encode(), given).fetchall()
        plan = "\n".join(line for (line,) in explained)
        assert set(_SCAN.findall(plan)) <= SMALL, plan
