"""No look-up of the SQLite store reads more rows than it returns, however large the store is."""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.contract.drill import KEY, Drill, acquire
from tests.contract.stores import STORES

from htlease.rules.attempt import SubjobKey
from htlease_server.store.base import Reader, Store
from htlease_server.store.sqlite.sqlite_store import SqliteStore

#: Look-up -> how to ask it.
LOOK_UPS: dict[str, Callable[[Any], object]] = {
    "workflow": lambda store: store.workflow("run7"),
    "workflows": lambda store: store.workflows("a", 10),
    "subjob": lambda store: store.subjob(KEY),
    "subjobs": lambda store: store.subjobs(1, "s", 10),
    "subjobs_known_as": lambda store: store.subjobs_known_as("s-1", 10),
    "counts": lambda store: store.counts(1),
    "totals": lambda store: store.totals(),
    "closed_workflows": lambda store: store.closed_workflows(1e12, 0, 10),
    "closed_subjobs": lambda store: store.closed_subjobs(1, 10),
    "nth_held": lambda store: store.nth_held(1, 0, 10),
    "overdue": lambda store: store.overdue(1, 1e12, 0, 10),
    "history": lambda store: store.history(1, 0, 10),
    "refused": lambda store: [store.refused(1, "r-1")],
    "history_of": lambda store: store.history_of(1, ["lease-acquired"]),
    "requests": lambda store: store.requests(1, 10),
    "maintenance": lambda store: store.maintenance(),
    "flags": lambda store: store.flags(),
    "audit_entries": lambda store: [
        *store.audit_entries(None, 0, 10),
        *store.audit_entries("mint-token", 0, 10),
    ],
    "revocations": lambda store: store.revocations(0.0),
    "next_ids": lambda store: store.next_ids(),
    "fence_floor": lambda store: store.fence_floor(),
}
#: They change something, or ask nothing.
NOT_LOOK_UPS = {"close", "reader", "write", "stamp", "begin_run", "check_in_place"}
#: Tables that stay small; of counts there are a few for each workflow.
SMALL = (
    "subjob_count",
    "server_run",
    "maintenance",
    "flag",
    "fence_floor",
    "trimming",
    "current_run",
)


def public(protocol: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(protocol, inspect.isfunction) if name[0] != "_"}


def test_every_look_up_is_looked_at() -> None:
    assert public(Reader) | public(Store) == set(LOOK_UPS) | NOT_LOOK_UPS


@pytest.mark.parametrize("name", LOOK_UPS)
def test_a_look_up_scans_no_table(name: str, tmp_path: Path) -> None:
    drill = Drill(STORES["sqlite"], tmp_path)
    drill.acquire()
    for number in range(20):
        drill.ask(acquire(), SubjobKey("run7", f"s-{number}"))
    assert isinstance(drill.store, SqliteStore)
    asked: list[str] = []
    drill.store._db.set_trace_callback(asked.append)
    assert LOOK_UPS[name](drill.store) is not None
    drill.store._db.set_trace_callback(None)
    drill.stop()
    assert asked
    with sqlite3.connect(tmp_path / "store.sqlite3") as db:
        for sql in asked:
            steps = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]
            scans = [step for step in steps if step.startswith("SCAN") and "CONSTANT" not in step]
            assert all(any(table in scan for table in SMALL) for scan in scans), (sql, steps)
            is_sorted = any("TEMP B-TREE" in step for step in steps)
            assert not is_sorted or "known_id" in sql or "subjob_count" in sql, (sql, steps)
    db.close()
