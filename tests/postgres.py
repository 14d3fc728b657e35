"""PostgreSQL clusters of our own, for tests and benchmarks: real, durable, and gone afterwards.

Uses Debian's programs and installs them where they are missing (as root). A cluster belongs to an
unprivileged account, listens on loopback and a socket in its folder, and has `fsync` on.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_ACCOUNT = "nobody"
_USER = "htlease"
_START_SECONDS = 60.0


@cache
def programs() -> Path:
    """Return the folder of the newest installed PostgreSQL; install Debian's if there is none."""
    found = _installed()
    if found is None:
        no_cluster = Path("/etc/postgresql-common/createcluster.conf")
        if not no_cluster.exists():
            no_cluster.parent.mkdir(exist_ok=True)
            no_cluster.write_text("create_main_cluster = false\n")
        # Nobody is there to be asked about that file.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "UCF_FORCE_CONFFOLD": "1"}
        for command in (
            ["update", "-q"],
            ["install", "-qy", "--no-install-recommends", "postgresql"],
        ):
            subprocess.run(
                [
                    *("apt-get", "-o", "DPkg::Lock::Timeout=300"),
                    *("-o", "Dpkg::Options::=--force-confold", *command),
                ],
                check=True,
                env=environment,
                stdout=subprocess.DEVNULL,
            )
        found = _installed()
    assert found is not None, "postgresql is not installed"
    return found


def _installed() -> Path | None:
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(versions, key=lambda path: int(path.parent.name)) if versions else None


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cluster:
    """A PostgreSQL server process with its data in a temporary folder."""

    def __init__(self, settings: Sequence[str] = ()) -> None:
        self._account = _ACCOUNT if getpass.getuser() == "root" else None
        self.folder = Path(tempfile.mkdtemp(prefix="htlease-pg-"))
        self._own(self.folder)
        self.data = self.folder / "data"
        self.port = free_port()
        self._settings = list(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count(1)
        self._lock = threading.Lock()

    def make(self) -> None:
        """Make the data folder."""
        self.run(
            "initdb",
            *("--pgdata", self.data, "--username", _USER, "--auth", "trust"),
            *("--encoding", "UTF8", "--no-locale", "--no-sync"),
        )

    def copy_of(self, primary: Cluster, name: str) -> None:
        """Become a standby of a running primary, known to it by a name."""
        source = f"host=127.0.0.1 port={primary.port} user={_USER} application_name={name}"
        self.run(
            "pg_basebackup",
            *("--pgdata", self.data, "--dbname", source, "--write-recovery-conf"),
            *("--wal-method", "stream", "--checkpoint", "fast"),
        )

    def start(self) -> None:
        """Start, and wait until connections are taken."""
        command: list[str | Path] = [
            *(programs() / "postgres", "-D", self.data, "-p", str(self.port), "-k", self.folder),
            *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=60"),
            *(part for setting in self._settings for part in ("-c", setting)),
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, user=self._account
            )
        until = time.monotonic() + _START_SECONDS
        while subprocess.run(self._ready(), stdout=subprocess.DEVNULL).returncode:
            assert self._process.poll() is None, self.log_text
            assert time.monotonic() < until, f"PostgreSQL does not start: {self.log_text}"
            time.sleep(0.05)

    def _ready(self) -> list[str | Path]:
        return [programs() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]

    @property
    def pid(self) -> int:
        """The main process."""
        assert self._process is not None
        return self._process.pid

    def send(self, number: int) -> None:
        """Send a signal to the main process; SIGQUIT ends all of it at once, as a crash does."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGINT) -> None:
        """End the server: SIGINT in order, SIGQUIT as a crash does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """End all of its processes at once, as when the machine loses its power."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)  # it is to start no more
        children = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/stat")
            if _parent_of(path) == self._process.pid
        ]
        for pid in (self._process.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(60)
        self._process = None

    def forget(self) -> None:
        """Remove the data; folder and port stay."""
        shutil.rmtree(self.data)

    def promote(self) -> None:
        """Make a standby the primary."""
        self.run("pg_ctl", "promote", "--pgdata", self.data, "--wait")

    def remove(self) -> None:
        """End the server and remove its data."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log_text(self) -> str:
        """What the server has written."""
        return (self.folder / "log").read_text(errors="replace")

    def url(self, database: str) -> str:
        """Return the URL of a database, as `--store` takes it."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def new_database(self, template: str = "template0") -> str:
        """Make a database, a copy of another one that nobody uses, and return its name."""
        with self._lock:
            name = f"site{next(self._names)}"
            self.sql("postgres", f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever uses it."""
        self.sql("postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def sql(self, database: str, script: str) -> str:
        """Run SQL as a person with a client would; returns rows, columns parted by `|`."""
        finished = subprocess.run(
            [
                *(programs() / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"),
                *("-d", self.url(database), "-c", script),
            ],
            capture_output=True,
            text=True,
        )
        if finished.returncode:
            raise RuntimeError(finished.stderr)
        return finished.stdout.strip()

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of PostgreSQL's programs as the owner of the data."""
        finished = subprocess.run(
            [programs() / program, *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            user=self._account,
        )
        assert finished.returncode == 0, finished.stderr

    def _own(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, pwd.getpwnam(self._account).pw_uid, -1)


def _parent_of(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return 0


@cache
def shared_cluster() -> Cluster:
    """Return the cluster of this process; whoever starts it removes it at the end."""
    cluster = Cluster()
    cluster.make()
    cluster.start()
    return cluster
