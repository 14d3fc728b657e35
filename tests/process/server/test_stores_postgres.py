"""Checking and shutting out what a database holds, and moving a site there and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.postgres import shared_cluster
from tests.process.store_command import NONCE, OTHER, THIRD, command, rows, store_of
from tests.process.test_observing import numbers, wait_for
from tests.process.wire_call import Caller
from tests.serving import ServerProcess

PATH = "/v1/workflows/w/subjobs"


@pytest.fixture
def url() -> str:
    """An empty database."""
    cluster = shared_cluster()
    return cluster.url(cluster.new_database())


@pytest.fixture
def shared(tmp_path: Path, url: str) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path / "shared", options=["--store", url])
    server.start()
    yield server
    server.stop()


def done(name: str, *arguments: str | Path) -> str:
    ran = command(name, *arguments)
    assert ran.returncode == 0, (ran.stdout, ran.stderr)
    return ran.stdout


def refused(name: str, *arguments: str | Path) -> str:
    ran = command(name, *arguments)
    assert ran.returncode == 78 and "Traceback" not in ran.stderr, (ran.stdout, ran.stderr)
    return ran.stderr


def fill(server: ServerProcess) -> None:
    """Leave subjobs of several kinds, one of them held."""
    admin = Caller(server.url, server.admin_token)
    for name in ("complete", "abandoned", "held"):
        job = f"ap1#{name}.0#17"
        assert admin.post(f"{PATH}/{name}/acquire", nonce=NONCE, global_job_id=job).status == 200
        admin.post(f"{PATH}/{name}/renew", nonce=NONCE, fence=1, details=f"ü {name}")
    admin.post(f"{PATH}/abandoned/abandon", nonce=NONCE, fence=1, reason="evicted")
    admin.post(f"{PATH}/complete/phases/run/enter", nonce=NONCE, fence=1)
    admin.post(f"{PATH}/complete/phases/run/complete", nonce=NONCE, fence=1)
    admin.post(f"{PATH}/complete/commit", nonce=NONCE, fence=1)
    admin.put("/v1/workflows/plain", labels={"run": "7"}, template=True)
    server.token("w", ttl_seconds=60)
    server.ask("PUT", "flags/hpss", {"is_up": False, "reason": "tape robot"})
    server.ask("PUT", "maintenance", {"ends_in_seconds": 3600, "reason": "move"})


def goes_on(server: ServerProcess, active: int) -> None:
    """Check that a moved server knows holders, histories and fences."""
    admin = Caller(server.url, server.admin_token)
    renewed = admin.post(f"{PATH}/held/renew", nonce=NONCE, fence=1)
    assert renewed.document["order"] == "continue"
    assert admin.get(f"{PATH}/held").document["details"] == "ü held"
    assert admin.post(f"{PATH}/held/acquire", nonce=OTHER).code == "lease-still-live"
    assert admin.post(f"{PATH}/complete/acquire", nonce=OTHER).code == "subjob-closed"
    assert admin.get("/v1/maintenance").document["open"]["reason"] == "move"
    counts = admin.get("/v1/workflows/w").document["counts"]
    assert (counts["active"], counts["complete"]) == (active, 1)
    found = admin.get("/v1/subjobs?id=ap1%23held.0%2317").document["subjobs"]
    assert [subjob["subjob"] for subjob in found] == ["held"]


def test_a_site_moves_to_a_database_and_back(
    own_server: ServerProcess, url: str, tmp_path: Path
) -> None:
    fill(own_server)
    own_server.stop()
    first, second, old = tmp_path / "first", tmp_path / "second", store_of(own_server)
    back = tmp_path / "back.sqlite3"
    done("export", first, "--store", f"sqlite:///{old}")
    done("import", first, "--store", url)
    assert "is not empty" in refused("import", first, "--store", url)
    assert "2 workflows, 3 subjobs" in done("check", "--store", url)
    # At once, with nothing in between: not a row is lost or changed on the way.
    done("export", second, "--store", url)
    done("import", second, "--store", f"sqlite:///{back}")
    assert rows(back) == rows(old)

    own_server.use_store(url)
    own_server.start()
    goes_on(own_server, active=1)
    new = Caller(own_server.url, own_server.admin_token).post(f"{PATH}/new/acquire", nonce=THIRD)
    assert new.document["fence"] == 1, "row IDs are given above those that came along"
    third, home = tmp_path / "third", tmp_path / "home.sqlite3"
    assert "another htlease server" in refused("export", third, "--store", url)
    own_server.stop()
    done("export", third, "--store", url)
    done("import", third, "--store", f"sqlite:///{home}")
    done("check", "--store", f"sqlite:///{home}")
    own_server.use_store(f"sqlite:///{home}")
    own_server.start()
    goes_on(own_server, active=2)


def test_half_an_archive_leaves_the_database_empty(
    own_server: ServerProcess, url: str, tmp_path: Path
) -> None:
    fill(own_server)
    own_server.stop()
    archive = tmp_path / "archive"
    done("export", archive, "--store", f"sqlite:///{store_of(own_server)}")
    whole = archive.read_text()
    archive.write_text(whole[: whole.rindex("\n", 0, -1) + 1])
    assert "is not complete" in refused("import", archive, "--store", url)
    archive.write_text(whole)
    done("import", archive, "--store", url)


def test_a_database_that_came_back_is_fenced_off(shared: ServerProcess, url: str) -> None:
    fill(shared)
    assert "another htlease server" in refused("fence-off", "--store", url)
    shared.stop()
    assert "1 leases were ended" in done("fence-off", "--store", url)
    done("check", "--store", url)
    shared.start()
    admin = Caller(shared.url, shared.admin_token)
    assert admin.post(f"{PATH}/held/renew", nonce=NONCE, fence=1).code == "superseded-attempt"
    again = admin.post(f"{PATH}/held/acquire", nonce=OTHER).document
    assert again["fence"] > 1e12 and again["details"] == "ü held"
    assert admin.post(f"{PATH}/forgotten/acquire", nonce=OTHER).document["fence"] > 1e12


def test_a_restored_dump_is_refused_until_it_is_fenced_off_or_said_to_be_the_only_one(
    shared: ServerProcess, url: str, tmp_path: Path
) -> None:
    """As a copy of the database in the same cluster; another cluster has other names too."""
    fill(shared)
    shared.stop()
    name = url.rpartition("/")[2].partition("?")[0]
    with psycopg.connect(url, dbname="postgres", autocommit=True) as db:
        db.execute(f'CREATE DATABASE "{name}_copy" TEMPLATE "{name}"'.encode())
    copy = url.replace(f"/{name}", f"/{name}_copy")
    second = ServerProcess(tmp_path / "second")
    second.use_store(copy)
    with pytest.raises(AssertionError):
        second.start()
    assert second.end(0) == 78 and "is a copy" in second.log_text
    assert "`htlease store moved`" in second.log_text
    shared.start()
    assert shared.subjob("w/held")["status"] == "active"
    shared.stop()
    done("moved", "--store", copy)
    second.start()
    assert second.subjob("w/held")["status"] == "active"
    second.stop()
    with psycopg.connect(copy) as db:
        db.execute("UPDATE store_place SET cluster = '1'")
    with pytest.raises(AssertionError):
        second.start()
    assert second.end(0) == 78
    assert "1 leases were ended" in done("fence-off", "--store", copy)
    second.start()
    second.stop()


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE subjob SET fence = 7 WHERE name = 'held'", "w/held: what lists show"),
        ("DELETE FROM known_id WHERE id_text = 'held'", "w/held: it cannot be found by held"),
        ("UPDATE subjob_count SET subjobs = subjobs + 8", "subjobs are said to be"),
        ("DELETE FROM lease", "3 subjobs have no lease record"),
        ("DELETE FROM subjob", "rows of history belong to no subjob"),
    ],
)
def test_check_finds_what_was_tampered_with(
    shared: ServerProcess, url: str, sql: str, says: str
) -> None:
    fill(shared)
    with psycopg.connect(url) as db:
        db.execute(sql.encode())
    ran = command("check", "--store", url)
    assert ran.returncode == 1 and says in ran.stdout, (ran.stdout, ran.stderr)


def test_a_database_without_a_store_is_named(url: str, tmp_path: Path) -> None:
    assert "htlease store migrate" in refused("check", "--store", url)
    done("migrate", "--store", url)
    assert "0 subjobs" in done("check", "--store", url)
    assert "your database's own means" in refused("backup", tmp_path / "copy", "--store", url)


def test_metrics_and_readiness_tell_that_the_database_is_away(
    shared: ServerProcess, url: str
) -> None:
    fill(shared)
    before = numbers(shared)
    assert before["htlease_subjobs", "status", "complete"] == 1
    cluster = shared_cluster()
    cluster.drop_database(url.rpartition("/")[2])

    def is_told() -> bool:
        return numbers(shared).get(("htlease_store_failing",)) == 1

    wait_for(is_told, "the server to notice")
    assert ("htlease_subjobs", "status", "complete") not in numbers(shared)
    called = Caller(shared.url, None).get("/readyz")
    assert called.code == "overloaded" and "127.0.0.1" in called.document["detail"]
    assert Caller(shared.url, None).get("/healthz").status == 200
