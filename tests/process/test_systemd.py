"""The server under a real systemd, set up by the commands of the manual."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from tests.booted import Machine
from tests.process.wire_call import NONCE, Called, Caller

PROJECT = Path(__file__).parents[2]
MANUAL = (PROJECT / "docs" / "operations.md").read_text()
SUBJOB = "/v1/workflows/w/subjobs/s"
LOCKS_FOR_3_S = """
import sqlite3, sys, time
store = sqlite3.connect(sys.argv[1])
store.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(3)
"""


def manual(after: str) -> str:
    """Return the first block of commands behind some words of the manual."""
    block = re.search(r"(?:^    .*\n)+", MANUAL[MANUAL.index(after) :], re.M)
    assert block is not None
    return re.sub(r"^    ", "", block[0], flags=re.M)


class Instance:
    """One instance of the template; a plain one listens on loopback."""

    def __init__(self, machine: Machine, name: str, port: int = 8620) -> None:
        self.machine = machine
        self.unit = f"htlease-server@{name}"
        self.state = f"/var/lib/htlease-server/{name}"
        self.store = f"sqlite:///{self.state}/htlease.sqlite3"
        self.port = port
        self.env = f"/etc/htlease/{name}.env"

    def configure(self, options: str = "--log-format json") -> None:
        line = f"HTLEASE_SERVE_OPTIONS=--listen 127.0.0.1:{self.port} {options}\n"
        self.machine.write(self.env, line)

    def systemctl(self, verb: str) -> str:
        return self.machine.run("systemctl", verb, self.unit, check=verb != "is-active").strip()

    def show(self, name: str) -> str:
        return self.machine.run("systemctl", "show", "-P", name, self.unit).strip()

    @property
    def journal(self) -> str:
        return self.machine.run("journalctl", "-o", "cat", "-u", self.unit)

    @property
    def pid(self) -> int:
        return int(self.show("MainPID"))

    def wait_active(self, but: int = 0) -> int:
        """Return the process that is ready, another than `but`."""

        def is_ready() -> bool:
            return self.systemctl("is-active") == "active" and self.pid not in (0, but)

        self.machine.wait_for(is_ready, f"{self.unit} to be active")
        return self.pid

    def kill(self, pid: int) -> None:
        """Kill a process, and wait until systemd has a new server."""
        server = self.pid
        self.machine.run("kill", "-KILL", str(pid))
        self.wait_active(but=server)

    def post(self, call: str, **body: object) -> Called:
        token = self.machine.read(f"{self.state}/admin.token").strip()
        with self.machine.network():
            caller = Caller(f"http://127.0.0.1:{self.port}", token)
            return caller.post(f"{SUBJOB}/{call}", nonce=NONCE, **body)

    def take_lease(self) -> None:
        assert self.post("acquire", ttl_seconds=600).document["fence"] == 1

    def has_lease(self) -> bool:
        return bool(self.post("renew", fence=1).document["order"] == "continue")


def put_certificate(machine: Machine, authority: trustme.CA) -> None:
    issued = authority.issue_cert("lease.example.org")
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    machine.write("/etc/ssl/lease.pem", chain.decode())
    machine.write("/etc/ssl/private/lease.key", issued.private_key_pem.bytes().decode())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout as a wheel; what it needs comes beside it once the machine's Python is known."""
    wheels = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, PROJECT], check=True)
    return wheels


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, wheels: Path, authority: trustme.CA
) -> Iterator[Machine]:
    """A machine with htlease in it, installed as the manual says; no server runs yet."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        machine.boot()
        version = machine.run("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
        (wheel,) = wheels.glob("htlease-*.whl")
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "-q", "download", "--dest", wheels),
                *("--python-version", version.strip(), "--only-binary=:all:"),
                f"{wheel}[server,ap]",
            ],
            check=True,
        )
        for wheel in wheels.iterdir():
            machine.file(f"/root/{wheel.name}").write_bytes(wheel.read_bytes())
        machine.write("/etc/pip.conf", "[global]\nno-index = 1\nfind-links = /root\n")
        machine.shell("groupadd ssl-cert; mkdir -p /etc/htlease /etc/ssl/private")
        authority.cert_pem.write_to_path(str(machine.file("/etc/ssl/authority.pem")))
        put_certificate(machine, authority)
        machine.shell("""
            chgrp -R ssl-cert /etc/ssl/private
            chmod 0710 /etc/ssl/private
            chmod 0640 /etc/ssl/private/lease.key
            echo 192.0.2.7 lease.example.org >> /etc/hosts
        """)
        machine.shell(manual("## As a service"))
        machine.shell("systemctl link /opt/htlease/share/htlease/systemd/htlease-server@.service")
        yield machine
    finally:
        machine.remove()


@pytest.fixture(scope="module")
def site(machine: Machine) -> Iterator[Machine]:
    """The two servers of the manual."""
    listed = machine.shell(
        "export HTLEASE_CA_FILE=/etc/ssl/authority.pem\n" + manual("By **systemd**")
    )
    assert "WORKFLOW" in listed
    yield machine
    machine.run("systemctl", "disable", "--now", "htlease-server@star", "htlease-server@phenix")


@pytest.fixture(scope="module")
def plain(machine: Machine) -> Iterator[Instance]:
    """A server on loopback whose subjob has a lease."""
    plain = Instance(machine, "plain")
    plain.configure()
    machine.run("systemctl", "enable", "--now", plain.unit)
    plain.take_lease()
    yield plain
    machine.run("systemctl", "disable", "--now", plain.unit)


def test_the_servers_of_the_manual_share_no_user_and_reach_nothing_else(site: Machine) -> None:
    users = set()
    for name in ("star", "phenix"):
        pid = Instance(site, name).pid
        users.add(site.run("ps", "-o", "user:32=", "-p", str(pid)).strip())
        status = dict(re.findall(r"(\w+):\t(.*)", site.read(f"/proc/{pid}/status")))
        assert (status["CapBnd"], status["CapEff"]) == ("0" * 16, "0" * 16)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        for place in ("/etc", "/usr", "/opt/htlease", "/var/lib/private/htlease-server", "/root"):
            sees = ["nsenter", f"--target={pid}", "--mount", "touch", f"{place}/new"]
            assert re.search("Read-only|denied|No such", site.run(*sees, check=False)), place
    assert users == {"htlease-star", "htlease-phenix"}
    site.run("systemd-analyze", "security", "--threshold=20", "htlease-server@star")


def test_a_renewed_certificate_is_read_at_systemctl_reload(
    site: Machine, authority: trustme.CA
) -> None:
    pid = Instance(site, "phenix").pid
    put_certificate(site, authority)
    site.run("systemctl", "reload", "htlease-server@phenix")
    site.wait_for(
        lambda: "the certificate was read again" in Instance(site, "phenix").journal, "a look"
    )
    assert Instance(site, "phenix").pid == pid


def test_however_often_server_or_writer_is_killed_it_is_back(plain: Instance) -> None:
    for _ in range(2):
        plain.kill(plain.pid)
    assert plain.has_lease()
    assert plain.show("StartLimitIntervalUSec") == "0"
    writer = plain.machine.run(
        "pgrep", "-f", "htlease_server.store.sqlite.writer_main .*/htlease-server/plain/"
    ).strip()
    plain.kill(int(writer))
    assert plain.has_lease()
    checked = plain.machine.run("htlease", "store", "check", "--store", plain.store)
    assert "1 subjobs" in checked


def test_a_server_that_is_stuck_is_started_again(plain: Instance) -> None:
    override = f"/etc/systemd/system/{plain.unit}.service.d/soon.conf"
    plain.machine.write(override, "[Service]\nWatchdogSec=2\n")
    plain.machine.shell(f"systemctl daemon-reload; systemctl restart {plain.unit}")
    stuck = plain.pid
    plain.machine.run("kill", "-STOP", str(stuck))
    plain.wait_active(but=stuck)
    assert plain.has_lease()
    plain.machine.shell(f"rm {override}; systemctl daemon-reload")


def test_after_a_crash_of_the_machine_it_is_there_again(plain: Instance) -> None:
    plain.machine.crash()
    plain.machine.boot()
    plain.wait_active()
    assert plain.has_lease()


def test_it_stops_well_and_a_set_up_that_cannot_work_is_tried_once(plain: Instance) -> None:
    plain.systemctl("stop")
    assert plain.journal.splitlines()[-1].endswith('"event":"stopped"}')
    assert (plain.show("Result"), plain.show("ExecMainStatus")) == ("success", "0")
    plain.configure("--auth-config /nowhere")
    plain.machine.run("systemctl", "start", plain.unit, check=False)
    assert (plain.systemctl("is-active"), plain.show("NRestarts")) == ("failed", "0")
    assert "/nowhere" in plain.journal.splitlines()[-1]
    plain.configure()
    plain.systemctl("start")
    assert plain.has_lease()


def test_a_store_that_takes_no_writes_yet_is_tried_again(plain: Instance) -> None:
    plain.systemctl("stop")
    lock = plain.machine.start("python3", "-c", LOCKS_FOR_3_S, f"{plain.state}/htlease.sqlite3")
    assert lock.stdout is not None and lock.stdout.readline() == b"locked\n"
    plain.machine.run("systemctl", "start", plain.unit, check=False)
    plain.wait_active()
    lock.wait(30)
    assert "takes no writes" in plain.journal
    assert plain.has_lease()


def test_what_root_restores_or_imports_belongs_to_the_server(plain: Instance) -> None:
    store = ["--store", plain.store]
    plain.machine.run("htlease", "store", "backup", "/root/copy", *store)
    plain.systemctl("stop")
    plain.machine.run("htlease", "store", "export", "/root/archive", *store)
    plain.machine.run("htlease", "store", "restore", "/root/copy", *store)
    plain.systemctl("start")
    assert plain.post("renew", fence=1).code == "superseded-attempt"

    moved = Instance(plain.machine, "moved", 8622)
    moved.configure()
    plain.machine.run("mkdir", "-p", moved.state)
    plain.machine.run("htlease", "store", "import", "/root/archive", "--store", moved.store)
    for name in ("admin.token", "signing.key"):
        plain.machine.run("cp", f"{plain.state}/{name}", moved.state)
    moved.systemctl("start")
    assert moved.has_lease()
    moved.systemctl("stop")
