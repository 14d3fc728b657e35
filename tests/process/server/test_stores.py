"""Checking, migrating and trimming the store of a real server."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from tests.process.store_command import (
    NONCE,
    OTHER,
    command,
    done,
    refused,
    store_of,
)
from tests.process.wire_call import Caller
from tests.serving import ServerProcess

UNMARK = (
    "UPDATE subjob SET snapshot ="
    " CAST(substr(snapshot, 1, length(snapshot) - 4) || x'00000000' AS BLOB)"
)
UNLOCK = "DROP TRIGGER history_is_never_changed; UPDATE history SET data = replace(data, "


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE subjob SET fence = 7 WHERE name = 's'", "w/s: what lists show"),
        ("DELETE FROM known_id WHERE id_text LIKE 'ap#1%'", "w/s: it cannot be found by ap#1"),
        ("UPDATE subjob_count SET subjobs = 9", "9 subjobs are said to be abandoned; there are 1"),
        ("DELETE FROM lease", "1 subjobs have no lease record"),
        ("DELETE FROM subjob", "rows of history belong to no subjob"),
        ("DROP TRIGGER history_is_never_changed; UPDATE history SET seq = 9 WHERE seq = 2", "gaps"),
        (UNLOCK + """'"fence":2', '"fence":1')""", "fence 1 was granted after fence 1"),
        (UNLOCK + "'ep1', 'ep2')", "its history tells of another state"),
        ("DROP TRIGGER history_is_never_changed; UPDATE history SET data = '{'", "cannot be read"),
        ("UPDATE subjob SET workflow_id = 99", "1 subjobs have no workflow"),
        (UNMARK, "a request that it accepted would not be recognised"),
    ],
)
def test_check_finds_what_was_tampered_with(own_server: ServerProcess, sql: str, says: str) -> None:
    job = {"global_job_id": "ap#1.0#17", "host": "ep1"}
    own_server.command("w/s", "acquire", nonce=NONCE, **job)
    own_server.command("w/s", "abandon", nonce=NONCE, fence=1)
    own_server.command("w/s", "acquire", nonce=OTHER, **job)
    own_server.command("w/s", "abandon", nonce=OTHER, fence=2)
    own_server.stop()
    store = store_of(own_server)
    assert "1 workflows, 1 subjobs, 5 events looked at" in done("check", store=store)
    with sqlite3.connect(store) as db:
        db.executescript(sql)
    db.close()
    ran = command("check", "--store", f"sqlite:///{store}")
    assert ran.returncode == 1 and says in ran.stdout, (ran.stdout, ran.stderr)
    assert "things are wrong with this store" in ran.stderr


def test_check_finds_a_broken_page(own_server: ServerProcess) -> None:
    for number in range(50):
        own_server.command(f"w/s-{number}", "acquire", nonce=NONCE, host="h" * 200)
    own_server.stop()
    store = store_of(own_server)
    whole = bytearray(store.read_bytes())
    place = whole.index(b"h" * 200)
    whole[place : place + 150] = b"\0" * 150  # a row
    whole[8 * 4096 : 8 * 4096 + 100] = b"\xff" * 100  # the head of a page
    store.write_bytes(whole)
    ran = command("check", "--store", f"sqlite:///{store}")
    assert ran.returncode == 1 and "restore a backup" in ran.stdout, (ran.stdout, ran.stderr)


# ------------------------------------------------------------ migrate


def test_a_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.sqlite3"
    for name, *arguments in (
        ("backup", tmp_path / "copy"),
        ("check",),
        ("export", tmp_path / "archive"),
        ("migrate",),
    ):
        assert str(nowhere) in refused(str(name), *arguments, store=nowhere)
    assert list(tmp_path.iterdir()) == []


def test_an_older_store_is_migrated_before_it_is_looked_at(tmp_path: Path) -> None:
    from htlease_server.store.sqlite import sqlite_store as module

    old, schema = tmp_path / "old.sqlite3", Path(module.__file__).with_name("schema")
    with sqlite3.connect(old) as db:
        db.executescript((schema / module.MIGRATIONS[0]).read_text() + "PRAGMA user_version = 1;")
    db.close()
    assert "htlease store migrate" in refused("check", store=old)
    assert f"version {len(module.MIGRATIONS)}" in done("migrate", store=old)
    assert "0 workflows" in done("check", store=old)


# ------------------------------------------------------------ trim


def test_trim_lists_and_deletes_what_has_been_closed_for_long(own_server: ServerProcess) -> None:
    for key in ("old/a", "old/b", "new/a", "open/a"):
        own_server.command(key, "acquire", nonce=NONCE, global_job_id=f"ap#{key}#1")
        if key != "open/a":
            own_server.command(key, "cancel", reason="not needed")
    own_server.stop()
    with sqlite3.connect(store_of(own_server)) as db:
        db.execute(
            "UPDATE subjob_count SET changed_at = 1 WHERE workflow_id IN"
            " (SELECT id FROM workflow WHERE name IN ('old', 'open'))"
        )
    db.close()
    own_server.start()
    admin_token = ("--admin-token-file", own_server.folder / "admin.token")
    at = ("--server", own_server.url, *admin_token)
    listed = command("trim", "--older", "30d", "--dry-run", *at)
    assert listed.stdout == ("old: 2 subjobs\n2 subjobs of 1 workflows would be deleted.\n"), (
        listed.stderr
    )
    assert own_server.subjob("old/a")["status"] == "cancelled"
    trimmed = command("trim", "--older", "30d", *at)
    assert trimmed.stdout == "2 subjobs of 1 workflows were deleted.\n", trimmed.stderr
    again = command("trim", "--older", "30d", *at)
    assert again.stdout == "0 subjobs of 0 workflows were deleted.\n", again.stderr
    admin = Caller(own_server.url, own_server.admin_token)
    assert admin.get("/v1/workflows/old/subjobs/a").code == "unknown-subjob"
    assert admin.get("/v1/subjobs?id=ap%23old%2Fa%231").document["subjobs"] == []
    assert own_server.subjob("open/a")["status"] == "active"
    assert own_server.subjob("new/a")["status"] == "cancelled"
    deeds = [deed["deed"] for deed in admin.get("/v1/audit").document["deeds"]]
    assert "trim" in deeds
    done("check", store=store_of(own_server))
    refusal = command("trim", "--older", "10m", *at)
    assert refusal.returncode == 2 and "a day" in refusal.stderr
