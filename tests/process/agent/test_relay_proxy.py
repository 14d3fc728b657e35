"""The relay's proxy: what it passes on unchanged, what it refuses, and which side it says failed.

There is no HTCondor here, which the relay has to bear as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.process.execution import Sandbox
from tests.process.faulty_proxy import FaultyProxy
from tests.process.line import CuttableLine
from tests.process.wire_call import Caller
from tests.serving import ServerProcess

START_SECONDS = 30.0


class Relay:
    """`htlease relay` as a process of its own."""

    def __init__(self, folder: Path, server_url: str, admin_token: str, **environ: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.socket = folder / "relay.sock"
        self._token_file = folder / "admin.token"
        self._token_file.touch(mode=0o600)
        self._token_file.write_text(admin_token)
        self._server_url = server_url
        self._environ = environ
        self._listen = "127.0.0.1:0"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self._listen}"

    @property
    def log(self) -> str:
        return (self.folder / "relay.log").read_text()

    def start(self) -> None:
        with (self.folder / "relay.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "htlease_cli.cli", "relay", "--poll", "0.5"),
                    *("--listen", self._listen, "--socket", self.socket),
                    *("--server", self._server_url, "--admin-token-file", self._token_file),
                    *("--state-dir", self.folder / "state"),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "CONDOR_CONFIG": "/dev/null", **self._environ},
            )
        until = time.monotonic() + START_SECONDS
        while (found := re.search(r"http://([\d.]+:\d+)\n", self.log)) is None or (
            "tokens at" not in self.log
        ):
            assert self._process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.05)
        self._listen = found[1]

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(20)
        self._process = None
        return status

    def close(self) -> None:
        if self._process is not None:
            self.stop(signal.SIGKILL)


@pytest.fixture
def new_relay(tmp_path: Path) -> Iterator[Callable[..., Relay]]:
    made: list[Relay] = []

    def new(server: ServerProcess, url: str | None = None) -> Relay:
        relay = Relay(tmp_path / f"relay{len(made)}", url or server.url, server.admin_token)
        made.append(relay)
        relay.start()
        return relay

    yield new
    for relay in made:
        relay.close()


@pytest.fixture
def relay(server: ServerProcess, new_relay: Callable[..., Relay]) -> Relay:
    return new_relay(server)


def acquire_body(name: str) -> bytes:
    body = {"nonce": f"0123456789abcdef-{name}", "request_id": name, "kind": "job"}
    return json.dumps(body).encode()


def test_a_wrapped_job_runs_through_the_relay(
    relay: Relay, server: ServerProcess, sandbox: Sandbox
) -> None:
    sandbox.environ["HTLEASE_URL"] = relay.url
    assert sandbox.run("--", "sh", "-c", "exit 7") == 7
    events = server.history(sandbox.key)
    assert {event["via"] for event in events} == {f"1.1 {socket.gethostname()} (htlease-relay)"}


def test_the_token_decides_as_it_does_without_a_relay(relay: Relay, server: ServerProcess) -> None:
    path = "/v1/workflows/relayed/subjobs/a/acquire"
    body = acquire_body("scope")
    other = Caller(relay.url, server.token("relayed", subjob="b")).raw("POST", path, body)
    assert (other.status, other.code) == (403, "forbidden")
    nobody = Caller(relay.url, "no-token-of-this-server").raw("POST", path, body)
    assert (nobody.status, nobody.code) == (401, "unauthorized")
    assert "www-authenticate" in nobody.headers
    assert (
        Caller(relay.url, server.token("relayed", subjob="a")).raw("POST", path, body).status == 200
    )


def test_nothing_is_passed_on_without_a_token(relay: Relay) -> None:
    refused = Caller(relay.url, None).raw("POST", "/v1/workflows/w/subjobs/s/acquire", b"{}")
    assert (refused.status, refused.code) == (401, "unauthorized")
    assert "relay" in refused.document["detail"]


@pytest.mark.parametrize(
    "path",
    ["/", "/metrics", "/openapi.json", "/v2/x", "http://example.org/v1/x", "/v1", "/healthz?x"],
)
def test_only_the_protocol_is_passed_on(relay: Relay, server: ServerProcess, path: str) -> None:
    refused = Caller(relay.url, server.admin_token).raw("GET", path)
    assert (refused.status, refused.code) == (404, "not-found")


def test_names_go_through_as_they_are_encoded(relay: Relay, server: ServerProcess) -> None:
    path = "/v1/workflows/a%23b/subjobs/c%2Bd/acquire"
    granted = Caller(relay.url, server.token("a#b")).raw("POST", path, acquire_body("names"))
    assert granted.status == 200
    assert server.ask("GET", "workflows/a%23b/subjobs/c%2Bd")["subjob"] == "c+d"
    slash = Caller(relay.url, server.admin_token).get("/v1/workflows/a%2Fb")
    assert (slash.status, slash.code) == (400, "invalid")


def test_a_query_and_a_refusal_with_retry_after_go_through(
    relay: Relay, server: ServerProcess
) -> None:
    caller = Caller(relay.url, server.token("queried"))
    path = "/v1/workflows/queried/subjobs/s"
    assert caller.raw("POST", f"{path}/acquire", acquire_body("one")).status == 200
    refused = caller.raw("POST", f"{path}/acquire", acquire_body("two"))
    assert (refused.status, refused.code) == (409, "lease-still-live")
    assert int(refused.headers["retry-after"]) > 0
    assert len(caller.get(f"{path}/history?limit=1").document["events"]) == 1


def test_a_body_that_is_too_large_never_reaches_the_server(
    relay: Relay, server: ServerProcess
) -> None:
    caller = Caller(relay.url, server.token("large"))
    path = "/v1/workflows/large/subjobs/s/acquire"
    refused = caller.raw("POST", path, b"x" * (256 * 1024 + 1))
    assert (refused.status, refused.code) == (413, "too-large")
    assert "relay" in refused.document["detail"]


def test_with_the_server_away_the_relay_says_so_and_when_to_come_again(
    own_server: ServerProcess, new_relay: Callable[..., Relay]
) -> None:
    relay = new_relay(own_server)
    own_server.stop()
    caller = Caller(relay.url, "some-token")
    refused = caller.raw("POST", "/v1/workflows/w/subjobs/s/acquire", acquire_body("away"))
    assert (refused.status, refused.code) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) > 0
    assert "relay" in refused.document["detail"] and own_server.url in refused.document["detail"]
    assert caller.get("/healthz").status == 503
    own_server.start()
    assert caller.get("/healthz").status == 200


def test_a_server_that_hangs_costs_a_bounded_time(
    own_server: ServerProcess, new_relay: Callable[..., Relay]
) -> None:
    relay = new_relay(own_server)
    own_server.signal(signal.SIGSTOP)
    try:
        refused = Caller(relay.url, "some-token").get("/healthz")
        assert (refused.status, refused.code) == (503, "overloaded")
    finally:
        own_server.signal(signal.SIGCONT)


def test_the_payload_goes_on_while_the_relay_is_killed_and_started_again(
    relay: Relay, server: ServerProcess, sandbox: Sandbox
) -> None:
    sandbox.environ["HTLEASE_URL"] = relay.url
    wrapper = sandbox.start("--ttl", "4", "--", "sh", "-c", "echo up > up; sleep 4")
    sandbox.wait_text("up")
    relay.stop(signal.SIGKILL)
    relay.start()
    assert wrapper.wait(60) == 0
    assert server.subjob(sandbox.key)["status"] == "exited"
    assert server.subjob(sandbox.key)["fence"] == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_faults_between_relay_and_server_do_no_harm(
    server: ServerProcess, new_relay: Callable[..., Relay], sandbox: Sandbox, seed: int
) -> None:
    faulty = FaultyProxy(server.url, seed)
    relay = new_relay(server, faulty.url)
    try:
        sandbox.environ["HTLEASE_URL"] = relay.url
        assert sandbox.run("--ttl", "20", "--", "sleep", "1") == 0, sandbox.messages
        assert server.subjob(sandbox.key)["exit_code"] == 0
    finally:
        faulty.close()


def test_a_line_to_the_server_that_breaks_is_used_again(
    server: ServerProcess, new_relay: Callable[..., Relay]
) -> None:
    line = CuttableLine(server.url)
    relay = new_relay(server, line.url)
    caller = Caller(relay.url, server.token("line"))
    path = "/v1/workflows/line/subjobs/s/acquire"
    try:
        assert caller.raw("POST", path, acquire_body("line")).status == 200
        line.cut()
        assert caller.raw("POST", path, acquire_body("line")).code == "overloaded"
        line.heal()
        assert caller.raw("POST", path, acquire_body("line")).status == 200
    finally:
        line.close()


def test_a_connection_that_says_nothing_is_closed(relay: Relay) -> None:
    host, port = relay.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 60) as silent:
        silent.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        assert silent.recv(1) == b""


def test_it_ends_in_order_and_leaves_no_socket(relay: Relay) -> None:
    assert relay.socket.exists()
    assert relay.stop() == 0
    assert not relay.socket.exists()
    assert "Traceback" not in relay.log


def test_a_socket_left_by_a_killed_relay_is_replaced_and_a_living_one_is_not(
    relay: Relay, server: ServerProcess
) -> None:
    relay.stop(signal.SIGKILL)
    assert relay.socket.exists()
    relay.start()
    second = subprocess.run(
        [
            *(sys.executable, "-m", "htlease_cli.cli", "relay", "--socket", relay.socket),
            *("--server", server.url, "--state-dir", relay.folder / "state"),
        ],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 78
    assert "another relay answers" in second.stderr and "Traceback" not in second.stderr


def test_many_at_once_are_all_answered(relay: Relay, server: ServerProcess) -> None:
    caller = Caller(relay.url, server.token("many"))

    def acquire(number: int) -> int:
        path = f"/v1/workflows/many/subjobs/s{number}/acquire"
        return caller.raw("POST", path, acquire_body(f"many{number}")).status

    with ThreadPoolExecutor(32) as threads:
        assert set(threads.map(acquire, range(300))) == {200}


def test_the_log_holds_no_token(relay: Relay, server: ServerProcess) -> None:
    token = server.token("logged")
    Caller(relay.url, token).get("/v1/workflows/logged")
    with contextlib.suppress(OSError):
        Caller(relay.url, token).raw("BREW", "/v1/workflows/logged")
    assert token not in relay.log and server.admin_token not in relay.log
