"""Moving the store of a real server: export and import."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.process.execution import Sandbox
from tests.process.store_command import (
    NONCE,
    OTHER,
    Jobs,
    done,
    refused,
    rows,
    store_of,
)
from tests.process.wire_call import Caller
from tests.serving import ServerProcess


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
