"""Copying, restoring, checking and moving the store of a real server."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.process.execution import Sandbox
from tests.process.wire_call import Caller
from tests.serving import ServerProcess

NONCE, OTHER, THIRD = (f"nonce-of-attempt-{number}-0123456789" for number in (1, 2, 3))


def store_of(server: ServerProcess) -> Path:
    return server.folder / "htlease.sqlite3"


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "htlease_admin.cli", "store", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def done(name: str, *arguments: str | Path, store: Path) -> str:
    """Run a command that has to work, and return what it says."""
    ran = command(name, *arguments, "--store", f"sqlite:///{store}")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def refused(name: str, *arguments: str | Path, store: Path) -> str:
    """Run a command that has to be refused, and return the one sentence that says why."""
    ran = command(name, *arguments, "--store", f"sqlite:///{store}")
    assert ran.returncode == 78, (ran.stdout, ran.stderr)
    assert ran.stderr.count("\n") == 1 and "Traceback" not in ran.stderr
    return ran.stderr


class Jobs(threading.Thread):
    """Runs small jobs one after the other until told to stop; keeps what was acknowledged."""

    def __init__(self, server: ServerProcess, number: int) -> None:
        super().__init__()
        self._admin = Caller(server.url, server.admin_token)
        self._number = number
        self._is_over = threading.Event()
        self.complete: list[str] = []

    def run(self) -> None:
        job = 0
        while not self._is_over.is_set():
            name, pair = f"s-{self._number}-{job}", {"nonce": NONCE, "fence": 1}
            path = f"/v1/workflows/load/subjobs/{name}"
            plan = {"phases": [{"name": "push", "restart": "once"}]}
            steps: list[tuple[str, dict[str, Any]]] = [
                ("acquire", {"nonce": NONCE, "plan": plan, "global_job_id": f"ap#{name}#1"}),
                ("phases/push/enter", pair),
                ("renew", {**pair, "details": "x" * 500}),
                ("phases/push/complete", pair),
            ]
            for call, body in steps:
                assert self._admin.post(f"{path}/{call}", **body).status == 200
            self.complete.append(name)
            job += 1

    def stop(self) -> None:
        self._is_over.set()
        self.join()


@pytest.fixture
def load(own_server: ServerProcess) -> Iterator[list[Jobs]]:
    jobs = [Jobs(own_server, number) for number in range(4)]
    for thread in jobs:
        thread.start()
    yield jobs
    for thread in jobs:
        thread.stop()


# ------------------------------------------------------------ backup


def test_a_backup_under_load_has_all_that_was_acknowledged_before(
    own_server: ServerProcess, load: list[Jobs], tmp_path: Path
) -> None:
    copy = tmp_path / "backup.sqlite3"
    while sum(len(jobs.complete) for jobs in load) < 100:
        assert all(jobs.is_alive() for jobs in load)
    before = [name for jobs in load for name in list(jobs.complete)]
    done("backup", copy, store=store_of(own_server))
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert "exists" in refused("backup", copy, store=store_of(own_server))
    told = done("check", store=copy)
    with sqlite3.connect(copy) as db:
        rows = dict(db.execute("SELECT name, status FROM subjob"))
        (events,) = db.execute("SELECT count(*) FROM history").fetchone()
    db.close()
    assert {rows[name] for name in before} == {"complete"}
    assert f"{len(rows)} subjobs, {events} events looked at" in told
    for jobs in load:
        jobs.stop()
    assert sum(len(jobs.complete) for jobs in load) > len(before), "the server went on meanwhile"
    done("check", store=store_of(own_server))


def zombies_after(own_server: ServerProcess, back: Callable[[], object]) -> None:
    """Let attempts come and go before and after a backup; then none of them may write."""
    admin = Caller(own_server.url, own_server.admin_token)
    path, new = "/v1/workflows/w/subjobs/s", "/v1/workflows/w/subjobs/new"
    first, second = {"nonce": NONCE, "fence": 1}, {"nonce": OTHER, "fence": 2}
    counters = [{"job_starts": number} for number in range(1, 4)]
    assert admin.post(f"{path}/acquire", nonce=NONCE, evidence=counters[0]).status == 200
    back_up = own_server.folder / "backup"
    done("backup", back_up, store=store_of(own_server))
    admin.post(f"{path}/abandon", **first)
    grant = admin.post(f"{path}/acquire", nonce=OTHER, evidence=counters[1], ttl_seconds=600)
    assert grant.document["fence"] == 2
    assert admin.post(f"{new}/acquire", nonce=OTHER).document["fence"] == 1
    assert "another htlease server" in refused("restore", back_up, store=store_of(own_server))
    own_server.stop()
    back()
    own_server.start()
    shown = admin.get(path).document
    assert shown["status"] == "abandoned" and "back" in shown["attempts"][-1]["reason"]
    for pair in (first, second):
        for call in ("renew", "phases/run/enter", "exited", "abandon"):
            code = admin.post(f"{path}/{call}", **pair).code
            assert code in ("superseded-attempt", "stale-fence"), (call, pair, code)
    assert admin.post(f"{new}/renew", nonce=OTHER, fence=1).code == "unknown-subjob"
    again = admin.post(f"{path}/acquire", nonce=THIRD, evidence=counters[2]).document
    assert again["fence"] > 2 and again["reclaimed"]
    fresh = admin.post(f"{new}/acquire", nonce=THIRD).document["fence"]
    assert fresh > 2, "a forgotten subjob does not begin below what it had"
    assert admin.post(f"{new}/renew", nonce=OTHER, fence=1).code in (
        "superseded-attempt",
        "stale-fence",
    )
    assert admin.post(f"{new}/renew", nonce=OTHER, fence=fresh).code == "stale-fence"
    assert admin.post(f"{path}/renew", nonce=THIRD, fence=again["fence"]).status == 200
    done("check", store=store_of(own_server))


def test_after_a_restore_no_attempt_of_before_can_write(own_server: ServerProcess) -> None:
    store, back_up = store_of(own_server), own_server.folder / "backup"
    zombies_after(own_server, lambda: done("restore", back_up, store=store))
    with sqlite3.connect(f"{store}.before-restore") as db:
        assert dict(db.execute("SELECT name, fence FROM subjob")) == {"s": 2, "new": 1}
    db.close()


def test_a_backup_copied_into_place_is_refused_until_fenced_off(
    own_server: ServerProcess,
) -> None:
    store, back_up = store_of(own_server), own_server.folder / "backup"

    def copy_into_place() -> None:
        for end in ("-wal", "-shm"):
            Path(f"{store}{end}").unlink(missing_ok=True)
        shutil.copy(back_up, store)
        with pytest.raises(AssertionError, match="is older than.*htlease store fence-off"):
            own_server.start()
        done("fence-off", "--reason", "the disk came back", store=store)

    zombies_after(own_server, copy_into_place)


def test_a_lost_store_is_not_quietly_begun_anew(own_server: ServerProcess) -> None:
    admin, path = Caller(own_server.url, own_server.admin_token), "/v1/workflows/w/subjobs/s"
    assert admin.post(f"{path}/acquire", nonce=NONCE).document["fence"] == 1
    own_server.stop()
    store_of(own_server).unlink()
    with pytest.raises(AssertionError, match="htlease store fence-off"):
        own_server.start()
    done("fence-off", store=store_of(own_server))
    own_server.start()
    assert admin.post(f"{path}/acquire", nonce=OTHER).document["fence"] > 1


# ------------------------------------------------------------ check

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


# ------------------------------------------------------------ export and import


def test_a_moved_store_has_every_row_and_its_leases_go_on(
    own_server: ServerProcess, load: list[Jobs], tmp_path: Path
) -> None:
    admin = Caller(own_server.url, own_server.admin_token)
    while sum(len(jobs.complete) for jobs in load) < 50:
        assert all(jobs.is_alive() for jobs in load)
    for jobs in load:
        jobs.stop()
    own_server.command("w/held", "acquire", nonce=NONCE, ttl_seconds=60)
    own_server.command("w/held", "renew", nonce=NONCE, fence=1, details="half way")
    admin.put("/v1/workflows/plain", labels={"run": "7"}, template=True)
    own_server.ask("PUT", "maintenance", {"ends_in_seconds": 3600, "reason": "move"})
    archive, old, new = tmp_path / "archive", store_of(own_server), tmp_path / "new.sqlite3"
    assert "another htlease server" in refused("export", archive, store=old)
    own_server.stop()
    done("export", archive, store=old)
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert NONCE not in archive.read_text()
    done("import", archive, store=new)
    assert rows(new) == rows(old)
    done("check", store=new)
    assert "exists" in refused("import", archive, store=new)

    own_server.use_store(f"sqlite:///{new}")
    own_server.start()
    renewed = admin.post("/v1/workflows/w/subjobs/held/renew", nonce=NONCE, fence=1)
    assert renewed.document["order"] == "continue"
    assert admin.get("/v1/workflows/w/subjobs/held").document["details"] == "half way"
    assert admin.get("/v1/maintenance").document["open"]["reason"] == "move"
    rival = admin.post("/v1/workflows/w/subjobs/held/acquire", nonce=OTHER)
    assert rival.code == "lease-still-live"
    found = admin.get("/v1/subjobs?id=ap%23s-0-0%231").document["subjobs"]
    assert [subjob["subjob"] for subjob in found] == ["s-0-0"]


def rows(store: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of a store; the order in which events of different subjobs came is lost."""
    with sqlite3.connect(store) as db:
        tables = [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        found = {}
        for table in tables:
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            kept = [name for name in columns if (table, name) != ("history", "id")]
            kept = [name for name in kept if (table, name) != ("subjob_count", "changed_at")]
            found[table] = sorted(db.execute(f"SELECT {', '.join(kept)} FROM {table}"), key=repr)
    db.close()
    found["subjob_count"] = [row for row in found["subjob_count"] if row[2]]
    return found


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda text: text[: len(text) // 2], "is it complete"),
        (lambda text: text[: text.rindex("\n", 0, -1) + 1], "is not complete"),
        (lambda text: text.replace('"format":1', '"format":2'), "upgrade htlease"),
        (lambda text: "{}\n" + text, "is not what"),
        (lambda text: text.replace('"subjob":[', '"sub":['), "sub"),
        (lambda text: "", "is not what"),
    ],
)
def test_half_an_archive_fills_no_store(
    own_server: ServerProcess, tmp_path: Path, spoil: Callable[[str], str], says: str
) -> None:
    own_server.command("w/s", "acquire", nonce=NONCE)
    own_server.stop()
    archive, new = tmp_path / "archive", tmp_path / "new.sqlite3"
    done("export", archive, store=store_of(own_server))
    archive.write_text(spoil(archive.read_text()))
    assert says in refused("import", archive, store=new)
    left = {path.name for path in tmp_path.iterdir()} - {"server", "archive"}
    assert left <= {"new.sqlite3.lock"}, "nothing is left half done"


def test_a_wrapper_rides_through_the_move_of_its_server(
    own_server: ServerProcess, new_sandbox: Callable[..., Sandbox], tmp_path: Path
) -> None:
    box = new_sandbox(own_server, key="w/s")
    process = box.start("--", "sh", "-c", "echo on > begun; until [ -e end ]; do sleep 0.05; done")
    box.wait_text("begun", "on")
    own_server.ask("PUT", "maintenance", {"ends_in_seconds": 3600})
    own_server.stop()
    archive, new = tmp_path / "archive", tmp_path / "new.sqlite3"
    done("export", archive, store=store_of(own_server))
    done("import", archive, store=new)
    own_server.use_store(f"sqlite:///{new}")
    own_server.start()
    (box.path / "end").touch()
    assert process.wait(60) == 0
    events = own_server.history("w/s")
    assert [event["event"] for event in events if event["event"].startswith("lease-")] == [
        "lease-acquired"
    ]
    assert events[-1]["event"] == "attempt-exited" and own_server.subjob("w/s")["fence"] == 1


# ------------------------------------------------------------ commands


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
    from htlease_server import sqlite as module

    old, schema = tmp_path / "old.sqlite3", Path(module.__file__).with_name("schema") / "sqlite"
    with sqlite3.connect(old) as db:
        db.executescript((schema / module.MIGRATIONS[0]).read_text() + "PRAGMA user_version = 1;")
    db.close()
    assert "htlease store migrate" in refused("check", store=old)
    assert f"version {len(module.MIGRATIONS)}" in done("migrate", store=old)
    assert "0 workflows" in done("check", store=old)


def test_json_lines_of_an_archive_say_what_they_are(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    own_server.command("w/s", "acquire", nonce=NONCE)
    own_server.stop()
    done("export", tmp_path / "archive", store=store_of(own_server))
    lines = [json.loads(line) for line in (tmp_path / "archive").read_text().splitlines()]
    assert lines[0]["head"]["format"] == 1
    assert lines[-1]["tail"] == {
        "workflows": 1,
        "subjobs": 1,
        "events": 1,
        "known_ids": 2,
        "deeds": 0,
    }
    assert os.fspath(store_of(own_server)) == lines[0]["head"]["store"]


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
