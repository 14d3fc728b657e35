"""A worker whose network ends at a forward proxy: every client reaches the server through it.

The worker is a network namespace with one cable to this machine and no route beyond; the proxy is
Debian's tinyproxy; the server speaks TLS on an address that only the proxy can reach.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trustme
from tests.process.execution import Sandbox, wait_for
from tests.serving import ServerProcess

from htlease_lab.pool import debian

USER = "worker:pass-word"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class Worker:
    """One network namespace, and the cable to the proxy's side."""

    def __init__(self) -> None:
        number = os.getpid() % 250 + 1
        self.namespace, self.cable = f"htlworker{number}", f"htlproxy{number}"
        self.proxy_address = f"10.79.{number}.1"
        #: An address of this machine that the worker has no route to.
        self.server_address = f"10.80.{number}.1"
        self._address = f"10.79.{number}.2"

    def plug(self) -> None:
        self.unplug()
        _ip("netns", "add", self.namespace)
        _ip(*f"link add {self.cable} type veth peer name eth0 netns {self.namespace}".split())
        _ip("address", "add", f"{self.proxy_address}/30", "dev", self.cable)
        _ip("link", "set", self.cable, "up")
        _ip("address", "add", f"{self.server_address}/32", "dev", "lo")
        for words in (
            f"address add {self._address}/30 dev eth0",
            "link set eth0 up",
            "link set lo up",
        ):
            _ip("-n", self.namespace, *words.split())

    def unplug(self) -> None:
        for words in (
            f"netns delete {self.namespace}",
            f"link delete {self.cable}",
            f"address delete {self.server_address}/32 dev lo",
        ):
            subprocess.run(["ip", *words.split()], stderr=subprocess.DEVNULL)

    def run(
        self, command: list[str], environ: Mapping[str, str], cwd: Path
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command],
            env={"PATH": os.environ["PATH"], **environ},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
        )


class ForwardProxy:
    """tinyproxy on the worker's side of this machine."""

    def __init__(self, folder: Path, address: str) -> None:
        self.log = folder / "proxy.log"
        with socket.create_server((address, 0)) as probe:
            port: int = probe.getsockname()[1]
        self.url = f"http://{USER}@{address}:{port}"
        self.url_without_user = f"http://{address}:{port}"
        configuration = folder / "tinyproxy.conf"
        user, _, password = USER.partition(":")
        configuration.write_text(
            f'Listen {address}\nPort {port}\nLogFile "{self.log}"\nLogLevel Connect\nMaxClients 20\n'
            f"Timeout 60\nBasicAuth {user} {password}\n"
        )
        self._process = subprocess.Popen(["tinyproxy", "-d", "-c", str(configuration)])
        wait_for(self._listens, "the proxy to listen")

    def _listens(self) -> bool:
        assert self._process.poll() is None, "tinyproxy has ended"
        address, _, port = self.url_without_user.removeprefix("http://").partition(":")
        try:
            socket.create_connection((address, int(port)), 1).close()
        except OSError:
            return False
        return True

    @property
    def tunnels(self) -> int:
        return self.log.read_text().count("CONNECT ")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


class Site:
    """Server, proxy and worker."""

    def __init__(self, folder: Path, worker: Worker) -> None:
        authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        issued = authority.issue_cert(worker.server_address)
        issued.private_key_pem.write_to_path(folder / "key.pem")
        (folder / "chain.pem").write_bytes(b"".join(p.bytes() for p in issued.cert_chain_pems))
        options = ("--tls-cert", folder / "chain.pem", "--tls-key", folder / "key.pem")
        self.worker = worker
        self.server = ServerProcess(folder / "server", worker.server_address, options)
        self.server.start()
        self.url = f"https://{worker.server_address}:{self.server.url.rpartition(':')[2]}"
        self.proxy = ForwardProxy(folder, worker.proxy_address)
        self.folder = folder

    def htlease(self, environ: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
        """Run the `htlease` command on the worker."""
        command = [sys.executable, "-m", "htlease_cli.cli", *words]
        roots = [
            str(Path(__file__).parents[2] / root) for root in ("core", "cli", "agent", "dagman")
        ]
        given = {
            "HTLEASE_URL": self.url,
            "HTLEASE_CA_FILE": str(self.ca_file),
            "BEARER_TOKEN": self.server.admin_token,
            "PYTHONPATH": ":".join(roots),
            "HOME": str(self.folder),
        }
        return self.worker.run(command, {**given, **environ}, self.folder)

    def close(self) -> None:
        self.proxy.stop()
        self.server.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    debian.install_packages(["iproute2", "tinyproxy-bin"], print)
    worker = Worker()
    worker.plug()
    try:
        site = Site(tmp_path_factory.mktemp("site"), worker)
        yield site
        site.close()
    finally:
        worker.unplug()


class WorkersSandbox(Sandbox):
    """A start of a job on the worker."""

    def __init__(self, path: Path, pyz: Path, site: Site, key: str) -> None:
        super().__init__(path, pyz, site.server, key)
        self.environ |= {"HTLEASE_URL": site.url, "HTLEASE_CA_FILE": str(site.ca_file)}
        self._namespace = site.worker.namespace

    def argv(self, *arguments: str) -> list[str]:
        return ["ip", "netns", "exec", self._namespace, *super().argv(*arguments)]


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
def test_a_job_behind_a_forward_proxy_has_its_lease(
    site: Site, pyz: Path, tmp_path: Path, name: str
) -> None:
    sandbox = WorkersSandbox(tmp_path / "scratch", pyz, site, f"behind/{name}")
    sandbox.environ[name] = site.proxy.url
    before = site.proxy.tunnels
    assert sandbox.run("--", "sh", "-c", "exit 5") == 5, sandbox.messages
    assert site.proxy.tunnels > before
    shown = site.htlease({"https_proxy": site.proxy.url}, "show", f"behind/{name}", "--json")
    assert shown.returncode == 0, shown.stderr
    assert '"exit_code": 5' in shown.stdout, shown.stdout
    assert "pass-word" not in sandbox.messages + shown.stdout + shown.stderr


def test_no_proxy_keeps_a_client_off_the_proxy(site: Site) -> None:
    before = site.proxy.tunnels
    environ = {
        "https_proxy": site.proxy.url,
        "no_proxy": f"example.org, {site.worker.server_address}/32",
    }
    done = site.htlease(environ, "list")
    assert done.returncode != 0
    assert "unreachable" in done.stderr, done.stderr
    assert site.proxy.tunnels == before


def test_a_proxy_that_wants_a_password_says_so(site: Site) -> None:
    done = site.htlease({"https_proxy": site.proxy.url_without_user}, "list")
    assert done.returncode != 0
    assert "https_proxy" in done.stderr and "407" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
