"""Every client checks the server's certificate before it sends its token, whatever it is."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from tests.process.agent.test_agent_proxy import Agent
from tests.process.hooking import HookedStart, Hooks
from tests.process.wire_call import Caller
from tests.serving import ServerProcess

TOKEN = "a-token-that-must-not-be-sent"


class Impostor:
    """Listens with a certificate, and notes every byte that a client sends over TLS."""

    def __init__(self, certificate: trustme.LeafCert | None) -> None:
        self.received = b""
        self.greeted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(self._context)
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.greeted += 1
            connection.settimeout(5)
            try:
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
                self.received += connection.recv(65536)
            except OSError:
                pass
            finally:
                connection.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _certificate(fault: str, authority: trustme.CA) -> trustme.LeafCert:
    if fault == "wrong authority":
        return trustme.CA().issue_cert("127.0.0.1")
    if fault == "wrong host":
        return authority.issue_cert("lease.example.org")
    long_ago = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    return authority.issue_cert(
        "127.0.0.1", not_before=long_ago, not_after=long_ago + datetime.timedelta(days=1)
    )


class Client:
    """One of our programs, and how it is made to call the server that a URL names."""

    def __init__(self, tmp_path: Path, pyz: Path, hooks: Hooks, server: ServerProcess) -> None:
        self.folder = tmp_path
        self.pyz = pyz
        self._hooks = hooks
        self._server = server
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "BEARER_TOKEN": TOKEN}

    def _run(self, *command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60
        )
        assert done.returncode != 0, done
        return done.stdout + done.stderr

    def wrapper(self, url: str) -> str:
        return self._run(
            *(sys.executable, self.pyz, "run", "--server", url, "--key", "tls/s"),
            *("--wait-server", "0", "--restart", "once", "--", "touch", "ran"),
        )

    def hook(self, url: str) -> str:
        start = HookedStart(self.folder / "dir_1", self._hooks, self._server, token=TOKEN)
        start.options += ["--on-no-server=idle"]
        start.environ |= {
            name: value for name, value in self.environ.items() if name in ("HTLEASE_CA_FILE",)
        }
        called = start.prepare(server=url)
        assert called.code != 0, called
        return called.stdout + called.stderr

    def command(self, url: str) -> str:
        return self._run(Path(sys.executable).with_name("htlease"), "--server", url, "list")

    def dag_script(self, url: str) -> str:
        (self.folder / "d.token").write_text(TOKEN)
        settings = {"version": 1, "workflow": "w", "server": url, "token_file": "d.token"}
        path = self.folder / "d.htlease.json"
        path.write_text(json.dumps({**settings, "wait_server_seconds": 1}))
        shutil.rmtree(self.folder / "d.htlease.d", ignore_errors=True)
        words = ("JOB", "a", "RETRY", "0", "MAX_RETRIES", "0", "DAGID", "1")
        return self._run(Path(sys.executable).with_name("htlease-dag"), "pre", path, *words)


CLIENTS: dict[str, Callable[[Client, str], str]] = {
    "wrapper": Client.wrapper,
    "hook": Client.hook,
    "htlease": Client.command,
    "htlease-dag": Client.dag_script,
}


@pytest.fixture
def client(
    tmp_path: Path, pyz: Path, hooks: Hooks, server: ServerProcess, authority: trustme.CA
) -> Iterator[Client]:
    made = Client(tmp_path, pyz, hooks, server)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    made.environ["HTLEASE_CA_FILE"] = str(ca_file)
    yield made


@pytest.mark.parametrize("fault", ["wrong authority", "wrong host", "expired"])
@pytest.mark.parametrize("name", CLIENTS)
def test_a_certificate_that_is_not_good_gets_no_token(
    client: Client, authority: trustme.CA, name: str, fault: str
) -> None:
    impostor = Impostor(_certificate(fault, authority))
    try:
        said = CLIENTS[name](client, f"https://127.0.0.1:{impostor.port}")
    finally:
        impostor.close()
    assert impostor.greeted and impostor.received == b""
    assert "certificate" in said.lower() and "Traceback" not in said
    assert ("HTLEASE_CA_FILE" in said) == (fault == "wrong authority")
    assert TOKEN not in said


@pytest.mark.parametrize("fault", ["wrong authority", "wrong host", "expired"])
def test_the_agent_passes_no_token_on_to_a_server_that_is_not_the_right_one(
    tmp_path: Path, authority: trustme.CA, fault: str
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    impostor = Impostor(_certificate(fault, authority))
    url = f"https://127.0.0.1:{impostor.port}"
    agent = Agent(tmp_path / "agent", url, TOKEN, HTLEASE_CA_FILE=str(tmp_path / "ca.pem"))
    agent.start()
    try:
        refused = Caller(agent.url, TOKEN).get("/v1/workflows")
        assert refused.code == "overloaded"
        assert "certificate" in agent.log.lower() and TOKEN not in agent.log
        assert impostor.greeted and impostor.received == b""
    finally:
        agent.stop()
        impostor.close()


def test_the_agent_reaches_a_server_whose_authority_it_is_told(
    tmp_path: Path, authority: trustme.CA
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(key)
    server = ServerProcess(tmp_path / "server", options=("--tls-cert", chain, "--tls-key", key))
    server.start()
    url = server.url.replace("http:", "https:")
    token = server.admin_token
    agent = Agent(tmp_path / "agent", url, token, HTLEASE_CA_FILE=str(tmp_path / "ca.pem"))
    try:
        agent.start()
        assert Caller(agent.url, token).get("/v1/workflows").status == 200
    finally:
        agent.stop()
        server.stop()


@pytest.mark.parametrize("name", CLIENTS)
def test_plain_http_to_another_machine_is_refused_before_it_is_called(
    client: Client, name: str
) -> None:
    said = CLIENTS[name](client, "http://lease.invalid:8620")
    assert "unencrypted" in said and "http+insecure://lease.invalid:8620" in said
    assert TOKEN not in said and "Traceback" not in said
    assert not (client.folder / "ran").exists()
