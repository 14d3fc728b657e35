"""Starting and stopping the server: what it says, what it makes, what it refuses."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process.wire_call import NONCE, Caller
from tests.serving import ServerProcess


class Started:
    """A server process and the block that it printed."""

    def __init__(self, *options: str | Path, home: Path) -> None:
        env = {name: value for name, value in os.environ.items() if "HTLEASE" not in name}
        env |= {"HOME": str(home), "XDG_STATE_HOME": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "htlease_server", *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        assert self.process.stdout is not None
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if "export HTLEASE_URL" in line:
                break

    @property
    def url(self) -> str:
        found = re.search(r"HTLEASE_URL=(\S+)", self.said)
        assert found, self.said
        return found[1]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Stop the process; return its exit status and what it wrote on stderr."""
        self.process.send_signal(number)
        _, complaints = self.process.communicate(timeout=30)
        return self.process.returncode, complaints


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    server = Started("--listen", "127.0.0.1:0", home=tmp_path)
    yield server
    if server.process.poll() is None:
        server.end(signal.SIGKILL)


def refused(*options: str | Path, home: Path) -> str:
    """Return the one sentence with which the server refuses to start."""
    server = Started(*options, home=home)
    _, complaints = server.process.communicate(timeout=30)
    assert server.process.returncode == 78, complaints
    assert complaints.startswith("htlease: ") and "Traceback" not in complaints
    assert complaints.count("\n") == 1
    return complaints


def test_without_options_it_says_where_everything_is(started: Started, tmp_path: Path) -> None:
    state = tmp_path / ".local" / "state" / "htlease"
    assert started.url.startswith("http://127.0.0.1:")
    for name in ("htlease.sqlite3", "admin.token", "signing.key"):
        assert str(state / name) in started.said
        assert (state / name).stat().st_mode & 0o077 == 0
    secret = (state / "admin.token").read_text().strip()
    assert len(secret) >= 32 and secret not in started.said
    assert Caller(started.url, secret).get("/v1/workflows").status == 200


def test_it_ends_with_status_0_and_nothing_is_lost(started: Started, tmp_path: Path) -> None:
    token = (tmp_path / ".local/state/htlease/admin.token").read_text().strip()
    answered: list[str] = []

    def write(number: int) -> None:
        caller = Caller(started.url, token)
        for count in range(10_000):
            name = f"s-{number}-{count}"
            try:
                called = caller.post(f"/v1/workflows/w/subjobs/{name}/acquire", nonce=NONCE)
            except OSError:
                return
            if called.status == 200:
                answered.append(name)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    while len(answered) < 50:
        assert started.process.poll() is None
    status, complaints = started.end()
    for writer in writers:
        writer.join()
    assert status == 0 and "WARNING" not in complaints and "ERROR" not in complaints
    again = Started("--listen", "127.0.0.1:0", home=tmp_path)
    caller = Caller(again.url, token)
    for name in answered:
        assert caller.get(f"/v1/workflows/w/subjobs/{name}").document["fence"] == 1
    assert again.end(signal.SIGINT)[0] == 0


def test_tokens_and_secrets_reach_no_log(started: Started, tmp_path: Path) -> None:
    state = tmp_path / ".local" / "state" / "htlease"
    secrets = [(state / name).read_text().strip() for name in ("admin.token", "signing.key")]
    admin = Caller(started.url, secrets[0])
    job = admin.mint(workflow="w")
    Caller(started.url, job).post("/v1/workflows/w/subjobs/s/acquire", nonce=NONCE)
    Caller(started.url, job[:-3] + "xyz").get("/v1/workflows/w")
    Caller(started.url, secrets[0] + "x").get("/v1/workflows")
    _, complaints = started.end()
    for secret in (*secrets, job, NONCE):
        assert secret not in complaints + started.said


def test_without_authentication_everybody_on_loopback_may_do_anything(tmp_path: Path) -> None:
    server = Started("--listen", "127.0.0.1:0", "--no-auth", home=tmp_path)
    assert "whoever can reach this address may do anything" in server.said
    nobody = Caller(server.url, None)
    nobody.post("/v1/workflows/w/subjobs/s/acquire", nonce=NONCE)
    history = nobody.get("/v1/workflows/w/subjobs/s/history").document["events"]
    assert {event["actor"] for event in history} == {"anonymous"}
    assert Caller(server.url, nobody.mint(workflow="w")).get("/v1/workflows/w").status == 200
    assert not list(tmp_path.rglob("admin.token"))
    assert server.end()[0] == 0


def test_no_authentication_beyond_loopback_is_refused(tmp_path: Path) -> None:
    for address in ("0.0.0.0:0", "[::]:0", "192.0.2.1:8620", "example.org:8620"):
        assert "loopback" in refused("--listen", address, "--no-auth", home=tmp_path)


def test_an_address_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in refused("--listen", f"127.0.0.1:{port}", home=tmp_path)
    for address in ("8620", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999"):
        assert address in refused("--listen", address, home=tmp_path)
    assert "192.0.2.1" in refused("--listen", "192.0.2.1:8620", home=tmp_path)


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused("--state-dir", tmp_path / "file/x", home=tmp_path)
    store = f"sqlite:///{tmp_path}/file/x/store"
    assert "cannot be made" in refused("--listen", "127.0.0.1:0", "--store", store, home=tmp_path)


def test_a_store_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    for url in ("mysql://x", "sqlite:/x", "sqlite:///"):
        assert url in refused("--listen", "127.0.0.1:0", "--store", url, home=tmp_path)
    path = tmp_path / "store.sqlite3"
    path.write_bytes(b"this is no database" * 1000)
    text = refused("--listen", "127.0.0.1:0", "--store", f"sqlite:///{path}", home=tmp_path)
    assert str(path) in text and "not a database" in text
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    text = refused("--listen", "127.0.0.1:0", "--store", f"sqlite:///{path}", home=tmp_path)
    assert str(path) in text and "version 99" in text and "upgrade" in text


def test_a_store_url_with_two_slashes_is_refused_with_the_right_ones(tmp_path: Path) -> None:
    why = refused("--listen", "127.0.0.1:0", "--store", "sqlite://srv/x", home=tmp_path)
    assert "sqlite:////srv/x for the absolute /srv/x" in why


def test_a_relative_store_path_is_taken_from_the_working_directory(tmp_path: Path) -> None:
    server = Started(
        "--listen", "127.0.0.1:0", "--store", f"sqlite:///{tmp_path}/a.db", home=tmp_path
    )
    assert str(tmp_path / "a.db") in server.said
    assert server.end()[0] == 0


def test_a_relative_state_directory_is_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = Started("--listen", "127.0.0.1:0", "--state-dir", "state", home=tmp_path)
    assert str(tmp_path / "state" / "admin.token") in server.said
    assert server.end()[0] == 0


def test_a_second_server_on_the_store_is_refused_and_the_first_goes_on(
    started: Started, tmp_path: Path
) -> None:
    assert "another htlease server" in refused("--listen", "127.0.0.1:0", home=tmp_path)
    assert Caller(started.url, None).get("/readyz").status == 200


def test_secrets_that_others_can_read_are_refused(started: Started, tmp_path: Path) -> None:
    started.end()
    for name in ("admin.token", "signing.key"):
        path = tmp_path / ".local/state/htlease" / name
        path.chmod(0o640)
        text = refused("--listen", "127.0.0.1:0", home=tmp_path)
        assert str(path) in text and "chmod 600" in text
        path.chmod(0o600)
    secret = path.read_text()
    path.write_text("\n")
    assert "too short" in refused("--listen", "127.0.0.1:0", home=tmp_path)
    path.write_text(secret)


def test_a_token_outlives_the_server_that_minted_it(own_server: ServerProcess) -> None:
    token = Caller(own_server.url, own_server.admin_token).mint(workflow="w")
    own_server.stop()
    own_server.start()
    assert Caller(own_server.url, token).get("/v1/workflows/w").code == "not-found"


def test_two_servers_on_one_host_share_nothing(tmp_path: Path) -> None:
    star, phenix = (ServerProcess(tmp_path / name) for name in ("star", "phenix"))
    for server in (star, phenix):
        server.start()
    try:
        path = "/v1/workflows/w/subjobs/s"
        assert Caller(star.url, star.admin_token).post(f"{path}/acquire", nonce=NONCE).status == 200
        assert Caller(phenix.url, star.admin_token).get(path).code == "unauthorized"
        assert Caller(phenix.url, star.token("w")).get(path).code == "unauthorized"
        assert Caller(phenix.url, phenix.admin_token).get(path).code == "unknown-subjob"
    finally:
        star.stop()
        phenix.stop()
