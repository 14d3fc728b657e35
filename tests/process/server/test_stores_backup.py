"""Copying the store of a real server, and bringing the copy back."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.process.store_command import (
    NONCE,
    OTHER,
    THIRD,
    Jobs,
    done,
    refused,
    store_of,
)
from tests.process.wire_call import Caller
from tests.serving import ServerProcess


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
    assert f"{len(rows)} subjobs, {events} events looked at, nothing wrong" in told
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
