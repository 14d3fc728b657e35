"""Whose a SQLite store is: one server's at a time, by whatever path, and never a copy's."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from htlease.errors import BadConfig
from htlease_server.store.base import Displaced, Run, WorkflowRow, WriteSet
from htlease_server.store.sqlite import sqlite_place
from htlease_server.store.sqlite.sqlite_file import Hold, check_in_place, refuse_other_names
from htlease_server.store.sqlite.sqlite_place import Place, why_elsewhere
from htlease_server.store.sqlite.sqlite_reader import connected
from htlease_server.store.sqlite.sqlite_store import SqliteStore
from htlease_server.store.sqlite.sqlite_writer import SqliteWriter

HERE = Place("7", "machine", "3", "store.sqlite3", "/srv/store.sqlite3")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


def workflow(number: int) -> WriteSet:
    return WriteSet([WorkflowRow(number, f"w{number}", 0.0, 0, "{}", None, None, None, None)])


def test_the_writer_of_an_old_run_is_refused_once_a_new_one_has_begun(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        store.begin_run(1.0)
        old = SqliteWriter(connected(path), path, 1.0, store.file.id)
        old.write(workflow(1))
        store.begin_run(2.0)
        for _ in range(2):
            with pytest.raises(Displaced, match="another server has started on it"):
                old.write(workflow(2))
        new = SqliteWriter(connected(path), path, 2.0, store.file.id)
        new.write(workflow(3))
        assert [row.name for row in store.workflows("", 10)] == ["w1", "w3"]
        old.close()
        new.close()


def test_a_writer_notices_that_its_store_is_gone(path: Path) -> None:
    store = SqliteStore(path)
    store.begin_run(1.0)
    writer = SqliteWriter(connected(path), path, 1.0, store.file.id)
    path.rename(path.with_name("away"))
    with pytest.raises(Displaced, match="was removed under the server"):
        writer.write(workflow(1))
    path.write_bytes(b"")
    for use in (writer.close, store.check_in_place, store.close):
        with pytest.raises(Displaced, match="was replaced by another file"):
            use()


@pytest.mark.parametrize("end", ["-wal", "-shm"])
def test_a_writer_whose_log_was_removed_saves_what_is_in_it(path: Path, end: str) -> None:
    store = SqliteStore(path)
    store.begin_run(1.0)
    writer = SqliteWriter(connected(path), path, 1.0, store.file.id)
    writer.write(workflow(1))
    path.with_name(path.name + end).unlink()
    with pytest.raises(Displaced, match="what was in it is in the main file now"):
        writer.write(workflow(2))
    copy = path.with_name("copy.sqlite3")
    copy.write_bytes(path.read_bytes())
    with closing(connected(copy)) as db:
        assert db.execute("SELECT name FROM workflow").fetchall() == [("w1",), ("w2",)]


def test_a_file_is_held_once_by_any_name(path: Path, tmp_path: Path) -> None:
    with closing(SqliteStore(path)):
        link = tmp_path / "link.sqlite3"
        link.symlink_to(path)
        path.with_name(f"{path.name}.lock").unlink()
        for name in (path, link):
            with pytest.raises(BadConfig, match="in use by another htlease server"):
                SqliteStore(name)
    with closing(SqliteStore(link)) as store:
        assert store.path == path and store.name == str(path)


def test_a_file_with_two_names_is_refused(path: Path, tmp_path: Path) -> None:
    SqliteStore(path).close()
    (tmp_path / "hard").hardlink_to(path)
    with pytest.raises(BadConfig, match=r"has 2 names .*find / -xdev -inum"):
        SqliteStore(path)
    with pytest.raises(BadConfig, match="hard links"):
        refuse_other_names(path)
    (tmp_path / "hard").unlink()
    SqliteStore(path).close()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadConfig, match="cannot be written"):
        Hold(tmp_path / "folder")
    with pytest.raises(BadConfig, match="cannot be written"):
        Hold(tmp_path / "nowhere" / "x")


def test_what_is_held_can_be_held_again_afterwards(path: Path) -> None:
    for is_made in (False, True, True):
        hold = Hold(path, is_made)
        assert (hold.file is not None) == is_made
        hold.close()
    hold = Hold(path)
    assert hold.file is not None
    hold.file.check()
    check_in_place(path, hold.file.id)
    hold.close()


def test_a_run_that_ended_in_order_says_that_all_is_in_the_main_file(path: Path) -> None:
    def is_whole() -> int:
        with closing(connected(path)) as db:
            (found,) = db.execute("SELECT is_whole FROM store_place").fetchone()
            return int(found)

    store = SqliteStore(path)
    store.begin_run(1.0)
    assert is_whole() == 0
    store.stamp(Run(1.0, 1.0))
    store.close()
    assert is_whole() == 1


@pytest.mark.parametrize(
    ("changes", "is_whole", "has_log", "why"),
    [
        ({}, False, False, None),
        ({"path": "/mnt/other"}, False, False, None),
        ({"inode": "8"}, True, True, "is a copy: it was last served as /srv/store.sqlite3"),
        ({"machine": "other"}, True, True, "last served as /srv/store.sqlite3 on another machine"),
        ({"machine": ""}, True, True, None),
        ({"name": "moved"}, True, False, None),
        ({"directory": "4"}, False, True, None),
        ({"name": "moved"}, False, False, "its newest writes lie there in store.sqlite3-wal"),
        ({"directory": "4"}, False, False, "was moved from /srv/store.sqlite3 after a crash"),
    ],
)
def test_a_store_is_known_by_where_it_is(
    changes: dict[str, str], is_whole: bool, has_log: bool, why: str | None
) -> None:
    found = why_elsewhere(HERE, is_whole, HERE._replace(**changes), has_log)
    assert (found is None) if why is None else (found is not None and why in found)


def test_a_copy_by_intent_is_one_in_any_place() -> None:
    found = why_elsewhere(HERE._replace(inode="copy"), True, HERE, True)
    assert found == "is a copy of /srv/store.sqlite3, which was served since"


@pytest.mark.parametrize("text", [None, "", "\n"])
def test_a_machine_without_a_name_is_any(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    path.touch()
    named = tmp_path / "machine-id"
    monkeypatch.setattr(sqlite_place, "_MACHINE_ID", named)
    if text is not None:
        named.write_text(text)
    assert Place.of(path).machine == ""
    named.write_text("0123456789abcdef\n")
    known = Place.of(path).machine
    assert known and "0123" not in known and known == Place.of(path).machine
