"""The lease server as a daemon of a real condor_master, by the configuration file we install."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.pool.lab import PROJECT
from tests.process.wire_call import Caller

from htlease_lab.pool import Pool
from htlease_lab.pool.processes import Process

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PORT = 8622
NONCE = "nonce-of-a-test-0123456789"
SETTINGS = """\
HTLEASE = {command}
HTLEASE_LISTEN = {address}
HTLEASE_STATE_DIR = {state}
HTLEASE_LOG = {log}
HTLEASE_USERID = root
HTLEASE_ENVIRONMENT = "PYTHONPATH={path}"
HTLEASE_SERVE_OPTIONS = --log-format=json
MASTER_BACKOFF_CONSTANT = 1
{more}
"""


@dataclass
class Kept:
    """A server that condor_master looks after."""

    pool: Pool
    state: Path
    log: Path
    path: str

    def configure(self, more: str = "") -> None:
        """Give the access point the file as it is shipped, with what a site sets before it."""
        shipped = (PROJECT / "server_stub/condor/lease-server.conf").read_text()
        settings = SETTINGS.format(
            command=self.state.parent / "htlease",
            address=f"{self.pool.ap_address}:{PORT}",
            state=self.state,
            log=self.log,
            path=self.path,
            more=more,
        )
        self.pool.configure("ap", "lease-server", settings + shipped)

    @property
    def caller(self) -> Caller:
        token = (self.state / "admin.token").read_text().strip()
        return Caller(f"http://{self.pool.ap_address}:{PORT}", token)

    def process(self) -> Process | None:
        """Return the server's process, if one runs."""
        found = [p for p in self.pool.processes() if "htlease_cli.cli" in p.argv]
        assert len(found) <= 1, found
        return found[0] if found else None

    def ready(self) -> Process:
        """Return the process of a server that answers."""
        self.pool.wait_for(self._is_ready, f"the lease server to be ready (see {self.log})", 90)
        process = self.process()
        assert process is not None
        return process

    def _is_ready(self) -> bool:
        try:
            return self.caller.get("/readyz").status == 200
        except OSError:
            return False


@pytest.fixture
def kept(pool: Pool) -> Iterator[Kept]:
    site = pool.directory / "lease-server"
    site.mkdir(mode=0o755, exist_ok=True)
    python = pool.run(["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "-q", "--target", site / "lib"),
            *("--python-version", python.stdout.strip(), "--only-binary=:all:"),
            *(*extras["ap"], *extras["server"]),
        ],
        check=True,
    )
    (site / "htlease").write_text('#!/bin/sh\nexec python3 -m htlease_cli.cli "$@"\n')
    (site / "htlease").chmod(0o755)
    roots = [PROJECT / name for name in ("core", "dagman", "server_stub", "cli", "agent", "lab")]
    kept = Kept(pool, site / "state", site / "log", ":".join(map(str, [*roots, site / "lib"])))
    kept.configure()
    yield kept
    pool.configure("ap", "lease-server", None)
    pool.wait_for(lambda: kept.process() is None, "condor_master to stop the lease server", 60)


def test_condor_master_starts_restarts_and_stops_the_server(kept: Kept) -> None:
    first = kept.ready()
    path = "/v1/workflows/w/subjobs/s"
    assert kept.caller.post(f"{path}/acquire", nonce=NONCE, ttl_seconds=600).document["fence"] == 1

    first.send(signal.SIGKILL)
    kept.pool.wait_for(lambda: (p := kept.process()) and p.pid != first.pid, "a new server", 60)
    second = kept.ready()
    renewed = kept.caller.post(f"{path}/renew", nonce=NONCE, fence=1)
    assert renewed.document["order"] == "continue", "the lease outlived the server"

    kept.configure("LEASE_SERVER_TEST = 1")  # as condor_reconfig would
    assert kept.ready().pid == second.pid
    assert "told to look at its files again" in kept.log.read_text()

    kept.pool.run(["condor_off", "-daemon", "HTLEASE"], as_root=True)
    kept.pool.wait_for(lambda: kept.process() is None, "the server to stop", 60)
    assert re.search(r'"event":"stopped"\}\s*$', kept.log.read_text()), "it ended by itself"
    kept.pool.run(["condor_on", "-daemon", "HTLEASE"], as_root=True)
    third = kept.ready()
    assert third.pid != second.pid
    assert kept.caller.get(path).document["fence"] == 1

    kept.pool.run(["condor_off", "-fast", "-daemon", "HTLEASE"], as_root=True)
    kept.pool.wait_for(lambda: kept.process() is None, "the server to stop quickly", 60)
    assert kept.log.read_text().count('"event":"stopped"') == 2
    kept.pool.run(["condor_on", "-daemon", "HTLEASE"], as_root=True)
    kept.ready()
