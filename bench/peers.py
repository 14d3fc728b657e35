"""The peers that ours is measured against: etcd and PostgreSQL, each as its own tools load it.

A peer that is not installed is skipped; `make bench-peers` installs both (Debian).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.postgres import Cluster, free_port, programs

#: Of one round; the first second does not count.
SECONDS = 10
_START_SECONDS = 30.0
_CLIENTS = 32
_ROWS = 100_000

#: One fenced write as a program over PostgreSQL would do it: a transaction of its own, in which
#: the row is locked and looked at, changed, and the change recorded.
_ONE_WRITE = f"""\\set id random(1, {_ROWS})
BEGIN;
SELECT fence, state FROM lease WHERE id = :id FOR UPDATE;
UPDATE lease SET state = 'active', seq = seq + 1, at = now() WHERE id = :id;
INSERT INTO history (lease_id, at, event, data)
VALUES (:id, now(), 'phase-entered', '{{"fence": 1}}');
COMMIT;
"""
_TABLES = f"""
CREATE TABLE lease (id bigint PRIMARY KEY, fence bigint, state text, seq bigint, at timestamptz);
CREATE TABLE history
(id bigserial PRIMARY KEY, lease_id bigint, at timestamptz, event text, data text);
INSERT INTO lease SELECT n, 1, 'active', 1, now() FROM generate_series(1, {_ROWS}) n;
"""


class Etcd:
    """An etcd of one member, loaded by `etcdctl check perf --load=xl`.

    That check offers 15,000 puts a second from 1,000 clients (keys of 256 bytes, values of 1 KiB)
    for a minute, more than this machine does, so what it measures is the machine. A round is some
    seconds of it, counted by the server's own metrics.
    """

    name = "etcd"

    def __init__(self, url: str) -> None:
        self._url = url

    @classmethod
    @contextlib.contextmanager
    def running(cls, directory: Path) -> Iterator[Etcd | None]:
        """Run an etcd with its data in a directory; None where it is not installed."""
        if not (shutil.which("etcd") and shutil.which("etcdctl")):
            print("etcd: skipped, it is not installed (make bench-peers)", flush=True)
            yield None
            return
        url, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        options = {
            "--data-dir": str(directory / "etcd"),
            "--listen-client-urls": url,
            "--advertise-client-urls": url,
            "--listen-peer-urls": peer,
            "--initial-advertise-peer-urls": peer,
            "--initial-cluster": f"default={peer}",
            "--log-level": "error",
        }
        command = ["etcd", *(f"{name}={value}" for name, value in options.items())]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                etcd = cls(url)
                etcd._wait()
                yield etcd
            finally:
                process.terminate()
                process.wait(30)

    def version(self) -> str:
        """Return the version."""
        said = subprocess.run(["etcd", "--version"], capture_output=True, text=True).stdout
        return said.splitlines()[0].rpartition(" ")[2]

    def round(self) -> float:
        """Return puts per second over one round."""
        with self._check() as process:
            time.sleep(1)
            before, started_at = self._puts(), time.monotonic()
            time.sleep(SECONDS)
            puts, seconds = self._puts() - before, time.monotonic() - started_at
            assert process.poll() is None, "etcdctl check perf ended early"
            process.send_signal(signal.SIGKILL)
        return puts / seconds

    def whole_check(self) -> str:
        """Return what a whole `check perf` says, in one line; takes a minute."""
        with self._check() as process:
            assert process.stdout is not None
            lines = process.stdout.read().splitlines()
        return "; ".join(line for line in lines if re.match("PASS:|FAIL:|Slowest|Throughput", line))

    @contextlib.contextmanager
    def _check(self) -> Iterator[subprocess.Popen[str]]:
        etcdctl = ["etcdctl", f"--endpoints={self._url}"]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        # It does not start while there are keys of an earlier check.
        subprocess.run(
            [*etcdctl, "del", "--prefix", "/etcdctl-check-perf/", "--command-timeout=60s"],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with subprocess.Popen(
            [*etcdctl, "check", "perf", "--load=xl"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            yield process

    def _puts(self) -> float:
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=20) as answer:
            text = answer.read().decode()
        found = re.search(r"^etcd_(?:debugging_)?mvcc_put_total (\S+)", text, re.MULTILINE)
        assert found is not None, "this etcd does not count its puts"
        return float(found[1])

    def _wait(self) -> None:
        until = time.monotonic() + _START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{self._url}/health", timeout=5).close()
                return
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)


class Pgbench:
    """A PostgreSQL cluster of our own, loaded by pgbench with one transaction for each write."""

    name = "pgbench"

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._script = cluster.folder / "write.sql"

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[Pgbench | None]:
        """Run a cluster in a temporary directory; None where PostgreSQL is not installed."""
        if not any(Path("/usr/lib/postgresql").glob("*/bin/pgbench")):
            print("pgbench: skipped, PostgreSQL is not installed (make bench-peers)", flush=True)
            yield None
            return
        cluster = Cluster()
        try:
            cluster.make()
            cluster.start()
            peer = cls(cluster)
            peer._script.write_text(_ONE_WRITE)
            peer._script.chmod(0o644)
            cluster.sql("postgres", _TABLES)
            yield peer
        finally:
            cluster.remove()

    def version(self) -> str:
        """Return the version."""
        return self.cluster.sql("postgres", "SHOW server_version").split()[0]

    def round(self) -> float:
        """Return transactions per second over one round."""
        said = subprocess.run(
            [
                programs() / "pgbench",
                *("-n", "-M", "prepared", "-c", str(_CLIENTS), "-j", "2", "-T", str(SECONDS)),
                *("-f", self._script, self.cluster.url("postgres")),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)
        assert found is not None, said
        return float(found[1])
