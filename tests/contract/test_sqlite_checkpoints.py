"""The write-ahead log of a SQLite store is moved beside the writer, and does not grow."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest
from tests.contract.drill import Drill
from tests.contract.stores import STORES, RefusingStore

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease_server.store.sqlite import checkpoint


@pytest.fixture
def drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drill:
    monkeypatch.setattr(checkpoint, "_CHANGES", 60)
    monkeypatch.setattr(checkpoint, "_REST", 20)
    monkeypatch.setattr(checkpoint, "_APART_SECONDS", 0.0)
    # What can be made to fail writes in this process.
    return Drill(STORES["sqlite"], tmp_path, RefusingStore)


def beginnings(folder: Path) -> int:
    """Return how often the log has begun anew (its header: https://sqlite.org/fileformat.html)."""
    return int.from_bytes((folder / "store.sqlite3-wal").read_bytes()[12:16], "big")


def pages_in_log(folder: Path) -> int:
    """Return how long the log has ever been."""
    return (folder / "store.sqlite3-wal").stat().st_size // 4096


def write(drill: Drill, count: int) -> None:
    """Make some commits of a few pages each."""
    for _ in range(count):
        key = SubjobKey("run7", f"s-{drill.now}")
        drill.acquire(key)
        drill.ask(m.Cancel("no longer wanted"), key)
        drill.now += 1


def test_the_log_begins_anew_again_and_again(drill: Drill, tmp_path: Path) -> None:
    write(drill, 400)  # 800 commits
    assert beginnings(tmp_path) > 2
    assert pages_in_log(tmp_path) < 3_000  # of some 6,000 that were written
    drill.stop()
    assert not (tmp_path / "store.sqlite3-wal").exists()


def test_writes_go_on_while_the_log_cannot_be_moved(
    drill: Drill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    write(drill, 1)  # the server's start has moved the log, and the first write begins anew
    before = beginnings(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(drill.store._writer._checkpoints, "_connect", refuse)
        broken.setattr(checkpoint, "_move", lambda connection: None)
        write(drill, 100)
        assert (beginnings(tmp_path), pages_in_log(tmp_path) > 500) == (before, True)
    deadline = time.monotonic() + 20
    while beginnings(tmp_path) == before:
        assert time.monotonic() < deadline, "the log is not moved any more"
        write(drill, 1)
    drill.close()
