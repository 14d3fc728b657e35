"""What is on the disk when the machine crashes, and what is said when the disk fails.

The server runs with a small library in front of the system's own (`synced.c`), which keeps the store
as it was synced last: what a crash of the machine would leave.
"""

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
from tests.process.store_command import done, store_of
from tests.process.wire_call import NONCE, Called, Caller
from tests.serving import ServerProcess

import htlease_server

WRITES = 20
PATH = "/v1/workflows/disk/subjobs"


class Disk:
    """A server over a disk that the test has in its hands."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server = server
        self.folder = folder

    def post(self, subjob: str, call: str, **body: object) -> Called:
        caller = Caller(self.server.url, self.server.admin_token)
        return caller.post(f"{PATH}/{subjob}/{call}", nonce=NONCE, **body)

    @property
    def syncs(self) -> int:
        return (self.folder / "count").stat().st_size

    def enter_in_vain(self) -> Called:
        """Enter a phase while no sync succeeds, and return the first answer that is not sure.

        Where the server's own sign of life met the failing disk first, it was sure.
        """
        for number in range(20):
            (self.folder / "fail").touch()
            answer = self.post("s", "phases/run/enter", fence=1, request_id="enter-1")
            assert answer.status == 503
            if answer.code == "outcome-unknown":
                return answer
            assert "nothing was changed" in answer.document["detail"]
            (self.folder / "fail").unlink()
            assert self.post(f"mended-{number}", "acquire").status == 200
        raise AssertionError("a sign of life was always first")

    def crash(self) -> None:
        """End the server, and have on the disk what was synced, as when the power fails."""
        writer = writer_of(self.server)
        os.kill(writer, signal.SIGSTOP)
        self.server.stop(signal.SIGKILL)
        os.kill(writer, signal.SIGKILL)
        wait_for(lambda: is_gone(writer), "the writer to end")
        store = store_of(self.server)
        for path in (store, store.with_name(f"{store.name}-wal")):
            synced = self.folder / path.name
            with path.open("r+b") as file:  # it stays the same file
                file.truncate()
                file.write(synced.read_bytes() if synced.exists() else b"")
        store.with_name(f"{store.name}-shm").unlink()

    def lost(self) -> list[str]:
        """Have writes acknowledged, crash, start again, and return which are not there."""
        names = [f"s-{number}" for number in range(WRITES)]
        for name in names:
            assert self.post(name, "acquire", ttl_seconds=600).status == 200
        self.crash()
        try:
            self.server.start()
        except AssertionError:
            return names  # it has seen that the store is older than what it was
        known = self.server.ask("GET", "workflows/disk?limit=100")["subjobs"]
        return sorted({*names} - {found["subjob"] for found in known})


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("library") / "synced.so"
    source = Path(__file__).with_name("synced.c")
    options = ["-Wall", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run(["cc", *options, "-o", str(library), str(source), "-ldl"], check=True)
    return library


@pytest.fixture
def disk(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    folder = tmp_path / "synced"
    folder.mkdir()
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("SYNCED_DIR", str(folder))
    disk = Disk(ServerProcess(tmp_path / "server"), folder)
    yield disk
    disk.server.stop()


def test_what_was_acknowledged_is_there_when_the_machine_has_crashed(disk: Disk) -> None:
    disk.server.start()
    before = disk.syncs
    assert disk.lost() == []
    assert disk.syncs - before >= WRITES, "each answer had a sync of its own before it"
    assert "nothing wrong" in done("check", store=store_of(disk.server))


def test_a_server_that_does_not_sync_is_found_out(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above, tested: the same server with `PRAGMA synchronous = OFF`."""
    package = tmp_path / "mutant" / "htlease_server"
    shutil.copytree(Path(htlease_server.__file__).parent, package)
    writer = package / "store" / "sqlite" / "sqlite_writer.py"
    text = writer.read_text()
    assert text.count("PRAGMA synchronous = FULL") == 1
    writer.write_text(text.replace("PRAGMA synchronous = FULL", "PRAGMA synchronous = OFF"))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    disk.server.start()
    assert len(disk.lost()) == WRITES


def test_a_sync_that_fails_once_is_said_and_leaves_nothing(disk: Disk) -> None:
    """The batch is in the log; something else is written in its place before the answer."""
    disk.server.start()
    assert disk.post("s", "acquire", ttl_seconds=600).status == 200
    (disk.folder / "fail-once").touch()
    answer = disk.post("s", "phases/run/enter", fence=1, request_id="enter-1")
    if answer.status == 200:
        pytest.skip("the server's own sign of life met the failing disk")
    assert (answer.status, answer.code) == (503, "overloaded")
    assert "nothing was changed" in answer.document["detail"]
    disk.server.stop(signal.SIGKILL)
    disk.server.start()
    assert disk.server.subjob("disk/s")["phase"] is None
    assert disk.post("s", "phases/run/enter", fence=1, request_id="enter-1").status == 200


def test_while_syncs_fail_the_outcome_is_unknown_and_told_by_the_same_request_later(
    disk: Disk,
) -> None:
    disk.server.start()
    assert disk.post("s", "acquire", ttl_seconds=600).status == 200
    answer = disk.enter_in_vain()
    assert "under the same request ID" in answer.document["detail"]
    assert answer.headers["retry-after"]
    other = disk.post("t", "acquire")
    assert other.status == 503
    assert disk.post("s", "renew", fence=1).status == 200, "renewals are not held up"
    (disk.folder / "fail").unlink()
    entered = disk.post("s", "phases/run/enter", fence=1, request_id="enter-1")
    assert (entered.status, entered.document["entries"]) == (200, 1)
    disk.crash()
    disk.server.start()
    assert disk.server.subjob("disk/s")["phase"] == "run"


@pytest.mark.parametrize("ends", ["killed", "crashed"])
def test_a_start_after_a_failed_sync_knows_what_became_of_it(disk: Disk, ends: str) -> None:
    """Killed, the log is as the system shows it; crashed, as the disk had it."""
    disk.server.start()
    assert disk.post("s", "acquire", ttl_seconds=600).status == 200
    disk.enter_in_vain()
    if ends == "killed":
        disk.server.stop(signal.SIGKILL)
    else:
        disk.crash()
    (disk.folder / "fail").unlink()
    disk.server.start()
    entered = disk.post("s", "phases/run/enter", fence=1, request_id="enter-1")
    assert (entered.status, entered.document["entries"]) == (200, 1)
    events = disk.server.events("disk/s", "phase-entered")
    assert len(events) == 1
    assert "nothing wrong" in done("check", store=store_of(disk.server))
