"""The agent's proxy: what it passes on unchanged, what it refuses, and which side it says failed.

There is no HTCondor here, which the agent has to bear as well.
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


class Agent:
    """`htlease agent` as a process of its own."""

    def __init__(self, folder: Path, server_url: str, admin_token: str, **environ: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.socket = folder / "agent.sock"
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
        return (self.folder / "agent.log").read_text()

    def start(self) -> None:
        with (self.folder / "agent.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "htlease_cli.cli", "agent", "--poll", "0.5"),
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
def new_agent(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    made: list[Agent] = []

    def new(server: ServerProcess, url: str | None = None) -> Agent:
        agent = Agent(tmp_path / f"agent{len(made)}", url or server.url, server.admin_token)
        made.append(agent)
        agent.start()
        return agent

    yield new
    for agent in made:
        agent.close()


@pytest.fixture
def agent(server: ServerProcess, new_agent: Callable[..., Agent]) -> Agent:
    return new_agent(server)


def acquire_body(name: str) -> bytes:
    body = {"nonce": f"0123456789abcdef-{name}", "request_id": name, "kind": "job"}
    return json.dumps(body).encode()


def test_a_wrapped_job_runs_through_the_agent(
    agent: Agent, server: ServerProcess, sandbox: Sandbox
) -> None:
    sandbox.environ["HTLEASE_URL"] = agent.url
    assert sandbox.run("--", "sh", "-c", "exit 7") == 7
    events = server.history(sandbox.key)
    assert {event["via"] for event in events} == {f"1.1 {socket.gethostname()} (htlease-agent)"}


def test_the_token_decides_as_it_does_without_a_agent(agent: Agent, server: ServerProcess) -> None:
    path = "/v1/workflows/relayed/subjobs/a/acquire"
    body = acquire_body("scope")
    other = Caller(agent.url, server.token("relayed", subjob="b")).raw("POST", path, body)
    assert (other.status, other.code) == (403, "forbidden")
    nobody = Caller(agent.url, "no-token-of-this-server").raw("POST", path, body)
    assert (nobody.status, nobody.code) == (401, "unauthorized")
    assert "www-authenticate" in nobody.headers
    assert (
        Caller(agent.url, server.token("relayed", subjob="a")).raw("POST", path, body).status == 200
    )


def test_nothing_is_passed_on_without_a_token(agent: Agent) -> None:
    refused = Caller(agent.url, None).raw("POST", "/v1/workflows/w/subjobs/s/acquire", b"{}")
    assert (refused.status, refused.code) == (401, "unauthorized")
    assert "agent" in refused.document["detail"]


@pytest.mark.parametrize(
    "path",
    ["/", "/metrics", "/openapi.json", "/v2/x", "http://example.org/v1/x", "/v1", "/healthz?x"],
)
def test_only_the_protocol_is_passed_on(agent: Agent, server: ServerProcess, path: str) -> None:
    refused = Caller(agent.url, server.admin_token).raw("GET", path)
    assert (refused.status, refused.code) == (404, "not-found")


def test_names_go_through_as_they_are_encoded(agent: Agent, server: ServerProcess) -> None:
    path = "/v1/workflows/a%23b/subjobs/c%2Bd/acquire"
    granted = Caller(agent.url, server.token("a#b")).raw("POST", path, acquire_body("names"))
    assert granted.status == 200
    assert server.ask("GET", "workflows/a%23b/subjobs/c%2Bd")["subjob"] == "c+d"
    slash = Caller(agent.url, server.admin_token).get("/v1/workflows/a%2Fb")
    assert (slash.status, slash.code) == (400, "invalid")


def test_a_query_and_a_refusal_with_retry_after_go_through(
    agent: Agent, server: ServerProcess
) -> None:
    caller = Caller(agent.url, server.token("queried"))
    path = "/v1/workflows/queried/subjobs/s"
    assert caller.raw("POST", f"{path}/acquire", acquire_body("one")).status == 200
    refused = caller.raw("POST", f"{path}/acquire", acquire_body("two"))
    assert (refused.status, refused.code) == (409, "lease-still-live")
    assert int(refused.headers["retry-after"]) > 0
    assert len(caller.get(f"{path}/history?limit=1").document["events"]) == 1


def test_a_body_that_is_too_large_never_reaches_the_server(
    agent: Agent, server: ServerProcess
) -> None:
    caller = Caller(agent.url, server.token("large"))
    path = "/v1/workflows/large/subjobs/s/acquire"
    refused = caller.raw("POST", path, b"x" * (256 * 1024 + 1))
    assert (refused.status, refused.code) == (413, "too-large")
    assert "agent" in refused.document["detail"]


def test_with_the_server_away_the_agent_says_so_and_when_to_come_again(
    own_server: ServerProcess, new_agent: Callable[..., Agent]
) -> None:
    agent = new_agent(own_server)
    own_server.stop()
    caller = Caller(agent.url, "some-token")
    refused = caller.raw("POST", "/v1/workflows/w/subjobs/s/acquire", acquire_body("away"))
    assert (refused.status, refused.code) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) > 0
    assert "agent" in refused.document["detail"] and own_server.url in refused.document["detail"]
    assert caller.get("/healthz").status == 503
    own_server.start()
    assert caller.get("/healthz").status == 200


def test_a_server_that_hangs_costs_a_bounded_time(
    own_server: ServerProcess, new_agent: Callable[..., Agent]
) -> None:
    agent = new_agent(own_server)
    own_server.signal(signal.SIGSTOP)
    try:
        refused = Caller(agent.url, "some-token").get("/healthz")
        assert (refused.status, refused.code) == (503, "overloaded")
    finally:
        own_server.signal(signal.SIGCONT)


def test_the_payload_goes_on_while_the_agent_is_killed_and_started_again(
    agent: Agent, server: ServerProcess, sandbox: Sandbox
) -> None:
    sandbox.environ["HTLEASE_URL"] = agent.url
    wrapper = sandbox.start("--ttl", "4", "--", "sh", "-c", "echo up > up; sleep 4")
    sandbox.wait_text("up")
    agent.stop(signal.SIGKILL)
    agent.start()
    assert wrapper.wait(60) == 0
    assert server.subjob(sandbox.key)["status"] == "exited"
    assert server.subjob(sandbox.key)["fence"] == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_faults_between_agent_and_server_do_no_harm(
    server: ServerProcess, new_agent: Callable[..., Agent], sandbox: Sandbox, seed: int
) -> None:
    faulty = FaultyProxy(server.url, seed)
    agent = new_agent(server, faulty.url)
    try:
        sandbox.environ["HTLEASE_URL"] = agent.url
        assert sandbox.run("--ttl", "20", "--", "sleep", "1") == 0, sandbox.messages
        assert server.subjob(sandbox.key)["exit_code"] == 0
    finally:
        faulty.close()


def test_a_line_to_the_server_that_breaks_is_used_again(
    server: ServerProcess, new_agent: Callable[..., Agent]
) -> None:
    line = CuttableLine(server.url)
    agent = new_agent(server, line.url)
    caller = Caller(agent.url, server.token("line"))
    path = "/v1/workflows/line/subjobs/s/acquire"
    try:
        assert caller.raw("POST", path, acquire_body("line")).status == 200
        line.cut()
        assert caller.raw("POST", path, acquire_body("line")).code == "overloaded"
        line.heal()
        assert caller.raw("POST", path, acquire_body("line")).status == 200
    finally:
        line.close()


def test_a_connection_that_says_nothing_is_closed(agent: Agent) -> None:
    host, port = agent.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 60) as silent:
        silent.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        assert silent.recv(1) == b""


def test_it_ends_in_order_and_leaves_no_socket(agent: Agent) -> None:
    assert agent.socket.exists()
    assert agent.stop() == 0
    assert not agent.socket.exists()
    assert "Traceback" not in agent.log


def test_a_socket_left_by_a_killed_agent_is_replaced_and_a_living_one_is_not(
    agent: Agent, server: ServerProcess
) -> None:
    agent.stop(signal.SIGKILL)
    assert agent.socket.exists()
    agent.start()
    second = subprocess.run(
        [
            *(sys.executable, "-m", "htlease_cli.cli", "agent", "--socket", agent.socket),
            *("--server", server.url, "--state-dir", agent.folder / "state"),
        ],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 78
    assert "another agent answers" in second.stderr and "Traceback" not in second.stderr


def test_many_at_once_are_all_answered(agent: Agent, server: ServerProcess) -> None:
    caller = Caller(agent.url, server.token("many"))

    def acquire(number: int) -> int:
        path = f"/v1/workflows/many/subjobs/s{number}/acquire"
        return caller.raw("POST", path, acquire_body(f"many{number}")).status

    with ThreadPoolExecutor(32) as threads:
        assert set(threads.map(acquire, range(300))) == {200}


def test_the_log_holds_no_token(agent: Agent, server: ServerProcess) -> None:
    token = server.token("logged")
    Caller(agent.url, token).get("/v1/workflows/logged")
    with contextlib.suppress(OSError):
        Caller(agent.url, token).raw("BREW", "/v1/workflows/logged")
    assert token not in agent.log and server.admin_token not in agent.log
