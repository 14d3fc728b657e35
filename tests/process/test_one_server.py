"""One server for each SQLite store, by whatever path a second one comes; never two holders."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.execution import wait_for
from tests.process.server.test_server_writer import is_gone, writer_of
from tests.process.store_command import NONCE, OTHER, command, done, store_of
from tests.process.wire_call import Called, Caller
from tests.serving import ServerProcess

PATH = "/v1/workflows/one/subjobs/s"


def post(server: ServerProcess, call: str, nonce: str = NONCE, **body: object) -> Called:
    return Caller(server.url, server.admin_token).post(f"{PATH}/{call}", nonce=nonce, **body)


def is_answered(server: ServerProcess) -> bool:
    """Tell whether a bare renewal is good with this server."""
    try:
        return post(server, "renew", fence=1).status == 200
    except OSError:
        return False


@pytest.fixture
def first(own_server: ServerProcess) -> ServerProcess:
    """A server with a live lease."""
    assert post(own_server, "acquire", ttl_seconds=600).status == 200
    return own_server


@pytest.fixture
def second(first: ServerProcess, tmp_path: Path) -> Iterator[ServerProcess]:
    """Another server, that nobody has started, with the tokens of the first."""
    folder = tmp_path / "second"
    folder.mkdir()
    for name in ("admin.token", "signing.key"):
        shutil.copy(first.folder / name, folder)
    server = ServerProcess(folder)
    yield server
    server.stop()


def refused(server: ServerProcess, store: Path) -> str:
    """Start a server that has to refuse a store, and return why."""
    server.use_store(f"sqlite:///{store}")
    with pytest.raises(AssertionError):
        server.start()
    assert server.end(0) == 78
    assert server.log_text.count("\n") == 1, server.log_text
    return server.log_text


@pytest.fixture
def mounted(first: ServerProcess, tmp_path: Path) -> Iterator[Path]:
    target = tmp_path / "mounted"
    target.mkdir()
    mount = ["mount", "--bind", str(first.folder), str(target)]
    made = subprocess.run(mount, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no bind mount: {made.stderr.strip()}")
    yield target
    subprocess.run(["umount", str(target)], check=True)


@pytest.mark.parametrize("is_lock_deleted", [False, True], ids=["locked", "lock-deleted"])
@pytest.mark.parametrize("way", ["same", "symlink", "symlink-to-folder", "hardlink"])
def test_a_second_server_is_refused_and_the_first_goes_on(
    first: ServerProcess, second: ServerProcess, tmp_path: Path, way: str, is_lock_deleted: bool
) -> None:
    store = store_of(first)
    if is_lock_deleted:
        store.with_name(f"{store.name}.lock").unlink()
    path = tmp_path / "other.sqlite3"
    if way == "symlink":
        path.symlink_to(store)
    elif way == "hardlink":
        path.hardlink_to(store)
    elif way == "symlink-to-folder":
        (tmp_path / "folder").symlink_to(first.folder)
        path = tmp_path / "folder" / store.name
    else:
        path = store
    why = refused(second, path)
    assert ("hard links" if way == "hardlink" else "in use by another htlease server") in why
    assert is_answered(first)
    assert post(first, "phases/run/enter", fence=1).status == 200


def test_a_second_server_behind_a_bind_mount_is_refused(
    first: ServerProcess, second: ServerProcess, mounted: Path
) -> None:
    (first.folder / "htlease.sqlite3.lock").unlink()
    assert "in use by another" in refused(second, mounted / "htlease.sqlite3")
    assert is_answered(first)


def test_store_commands_are_refused_too(first: ServerProcess, tmp_path: Path) -> None:
    """They write past the server, by whatever path."""
    store = store_of(first)
    store.with_name(f"{store.name}.lock").unlink()
    link = tmp_path / "link.sqlite3"
    link.symlink_to(store)
    for path in (store, link):
        ran = command("fence-off", "--store", f"sqlite:///{path}")
        assert ran.returncode == 78 and "in use by another" in ran.stderr
    assert is_answered(first)


@pytest.mark.parametrize("way", ["unlinked", "moved", "replaced", "replaced-by-link"])
def test_a_server_whose_store_is_gone_from_its_path_answers_nothing_any_more(
    first: ServerProcess, second: ServerProcess, tmp_path: Path, way: str
) -> None:
    store = store_of(first)
    if way == "unlinked":
        store.unlink()
    elif way == "moved":
        store.rename(tmp_path / "away.sqlite3")
    elif way == "replaced":
        shutil.copy(store, tmp_path / "copy")
        (tmp_path / "copy").rename(store)
    else:
        store.rename(tmp_path / "away.sqlite3")
        store.symlink_to(tmp_path / "away.sqlite3")
    assert not is_answered(first), "not a single renewal"
    assert first.end(0) == 1
    assert "under the server that uses it" in first.log_text
    assert "Traceback" not in first.log_text


def test_an_idle_server_notices_by_itself_and_leaves_the_log_of_its_successor(
    first: ServerProcess, second: ServerProcess
) -> None:
    store = store_of(first)
    for path in store.parent.glob(f"{store.name}*"):
        path.rename(path.with_name(f"old-{path.name}"))
    second.use_store(f"sqlite:///{store}")
    second.start()  # on a new store; the old one is not named here any more
    assert post(second, "acquire", OTHER).document["fence"] == 1
    assert first.end(0) == 1, "nobody has asked it anything"
    assert not is_answered(first)
    assert store.with_name(f"{store.name}-wal").exists()
    second.stop(signal.SIGKILL)
    second.start()
    entered = post(second, "phases/run/enter", OTHER, fence=1)
    assert entered.status == 200, "what was acknowledged is there"


@pytest.mark.parametrize("which", ["-wal", "-shm"])
def test_a_log_that_is_removed_under_a_server_costs_nothing_that_was_acknowledged(
    first: ServerProcess, which: str
) -> None:
    store = store_of(first)
    assert post(first, "phases/run/enter", fence=1).status == 200
    store.with_name(store.name + which).unlink()
    answer = post(first, "renew", fence=1, details="x")
    assert (answer.status, answer.code) == (503, "outcome-unknown")
    assert not is_answered(first)
    assert first.end(0) == 1
    first.start()
    shown = first.subjob("one/s")
    assert shown["phase"] == "run"
    assert "nothing wrong" in done("check", store=store)


def test_a_copy_is_refused_until_it_is_fenced_off(
    first: ServerProcess, second: ServerProcess, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.sqlite3"
    first.stop()
    shutil.copy(store_of(first), copy)
    first.start()
    why = refused(second, copy)
    assert f"it was last served as {store_of(first)}" in why
    assert f"`htlease store fence-off --store sqlite:///{copy}`" in why
    done("fence-off", store=copy)
    assert is_answered(first), "the first one knows nothing of the copy"
    first.stop()
    second.start()
    assert post(second, "renew", fence=1).code == "superseded-attempt"
    assert post(second, "acquire", OTHER).document["fence"] > 1_000_000_000_000


def test_a_copy_of_a_store_that_nobody_serves_any_more_goes_on(
    first: ServerProcess, second: ServerProcess, tmp_path: Path
) -> None:
    """As on a new disk: its leases go on, on the word of whoever moved it."""
    copy = tmp_path / "copy.sqlite3"
    first.stop()
    shutil.copy(store_of(first), copy)
    assert "htlease store moved" in refused(second, copy)
    done("moved", store=copy)
    second.start()
    assert is_answered(second)


def test_a_backup_copied_onto_the_file_is_refused(first: ServerProcess, tmp_path: Path) -> None:
    """The file and its machine are the same then."""
    store, backup = store_of(first), tmp_path / "backup.sqlite3"
    done("backup", backup, store=store)
    first.stop()
    store.with_name(f"{store.name}.lock").unlink()
    with backup.open("rb") as source, store.open("r+b") as target:
        shutil.copyfileobj(source, target)
    assert "is a copy of" in refused(first, store)


def test_a_moved_store_is_served_where_it_is(
    first: ServerProcess, second: ServerProcess, tmp_path: Path
) -> None:
    first.stop()
    store_of(first).rename(tmp_path / "moved.sqlite3")
    second.use_store(f"sqlite:///{tmp_path / 'moved.sqlite3'}")
    second.start()
    assert is_answered(second)


def test_a_store_that_was_moved_without_its_log_after_a_crash_is_refused(
    first: ServerProcess, second: ServerProcess, tmp_path: Path
) -> None:
    store, moved = store_of(first), tmp_path / "moved.sqlite3"
    writer = writer_of(first)
    os.kill(writer, signal.SIGSTOP)
    first.stop(signal.SIGKILL)
    os.kill(writer, signal.SIGKILL)
    wait_for(lambda: is_gone(writer), "the writer to end")
    log = store.with_name(f"{store.name}-wal")
    store.rename(moved)
    assert "bring that file too" in refused(second, moved)
    log.rename(moved.with_name(f"{moved.name}-wal"))
    second.start()
    assert is_answered(second)
