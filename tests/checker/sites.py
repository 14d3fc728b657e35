"""Sites to be tested: what runs, and what is done to it."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from tests.balancer import Balancer
from tests.checker.line import Endpoint
from tests.checker.record import Outage
from tests.postgres import Cluster
from tests.serving import ServerProcess


class SqliteSite:
    """One server on one SQLite file, killed, stopped and frozen at random.

    `broken` names a rule that this server breaks, of those in `tests.checker.broken`.
    """

    def __init__(self, folder: Path, broken: str | None = None) -> None:
        self._server = ServerProcess(folder, module=_module(broken))
        self._server.start()

    @property
    def endpoints(self) -> list[Endpoint]:
        return [_endpoint(self._server)]

    @property
    def token(self) -> str:
        return self._server.admin_token

    def disturb(self, draw: random.Random) -> Outage | None:
        """Kill it most often; sometimes stop it as an administrator does, or freeze it."""
        what = draw.choice(["kill", "kill", "kill", "stop", "freeze"])
        if what == "freeze":
            _freeze(self._server, draw)
            return None
        down_at = time.monotonic()
        self._server.stop(signal.SIGKILL if what == "kill" else signal.SIGTERM)
        gone_at = time.monotonic()
        time.sleep(draw.choice([0.0, 0.0, 0.5, 2.0]))
        started_at = time.monotonic()
        self._server.start()
        return Outage(down_at, gone_at, started_at)

    def close(self) -> None:
        self._server.stop()


class PostgresSite:
    """Two servers on one database, all of which are killed, stopped and frozen at random.

    Clients ask either server, whichever the last answer came from.
    """

    def __init__(self, folder: Path, broken: str | None = None) -> None:
        folder.mkdir(exist_ok=True)
        # What is not committed to the disk is then lost for certain by a crash.
        self._database = Cluster(["wal_writer_delay=10s"])
        self._database.make()
        self._database.start()
        token_file, store = folder / "admin.token", self._database.url("postgres")
        options = ("--admin-token-file", token_file, "--store", store)
        self._servers = [
            ServerProcess(folder / name, options=options, module=_module(broken))
            for name in ("a", "b")
        ]
        for server in self._servers:
            server.start()
        self.token = token_file.read_text().strip()

    @property
    def endpoints(self) -> list[Endpoint]:
        return [_endpoint(server) for server in self._servers]

    def disturb(self, draw: random.Random) -> Outage | None:
        """Kill, stop or freeze one of the servers, or crash or restart the database."""
        what = draw.choice(["kill", "kill", "stop", "freeze", "crash", "crash", "restart"])
        server = draw.choice(self._servers)
        if what == "freeze":
            _freeze(server, draw)
        if what in ("kill", "stop"):
            server.stop(signal.SIGKILL if what == "kill" else signal.SIGTERM)
            time.sleep(draw.choice([0.0, 0.5]))
            server.start()
        if what not in ("crash", "restart"):
            return None
        down_at = time.monotonic()
        self._database.stop(signal.SIGQUIT if what == "crash" else signal.SIGINT)
        gone_at = time.monotonic()
        time.sleep(draw.choice([0.0, 0.5, 2.0]))
        started_at = time.monotonic()
        self._database.start()
        return Outage(down_at, gone_at, started_at)

    def close(self) -> None:
        for server in self._servers:
            server.stop()
        self._database.remove()


class FailoverSite:
    """Two servers behind a balancer, on a primary with a synchronous standby.

    The primary loses its power, and the standby takes over and gets a standby of its own, again
    and again; servers are killed meanwhile. Clients know the balancer only.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        settings = ["wal_writer_delay=10s", "synchronous_standby_names=*"]
        self._primary, self._standby = Cluster(settings), Cluster(settings)
        self._primary.make()
        # What comes before there is a standby does not wait for one.
        self._primary.start()
        self._add_standby()
        ports = (self._primary.port, self._standby.port)
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        token_file = folder / "admin.token"
        options = (
            *("--admin-token-file", token_file),
            *("--store", f"postgresql://htlease@{hosts}/postgres"),
        )
        self._servers = [ServerProcess(folder / name, options=options) for name in ("a", "b")]
        for server in self._servers:
            server.start()
        self.token = token_file.read_text().strip()
        self._balancer = Balancer([_endpoint(server) for server in self._servers])
        self.endpoints = [Endpoint("127.0.0.1", self._balancer.port)]

    def disturb(self, draw: random.Random) -> Outage | None:
        """Kill a server, or the primary's machine."""
        if draw.random() < 0.4:
            server = draw.choice(self._servers)
            server.stop(signal.SIGKILL)
            time.sleep(draw.choice([0.0, 0.5]))
            server.start()
            return None
        down_at = time.monotonic()
        self._primary.kill()
        gone_at = time.monotonic()
        time.sleep(draw.choice([0.0, 1.0]))
        started_at = time.monotonic()
        self._standby.promote()
        self._primary, self._standby = self._standby, self._primary
        self._standby.forget()
        self._add_standby()
        return Outage(down_at, gone_at, started_at)

    def _add_standby(self) -> None:
        self._standby.copy_of(self._primary, "standby")
        self._standby.start()

    def close(self) -> None:
        self._balancer.close()
        for server in self._servers:
            server.stop()
        self._primary.remove()
        self._standby.remove()


def _module(broken: str | None) -> list[str]:
    return ["htlease_server"] if broken is None else ["tests.checker.broken", broken]


def _endpoint(server: ServerProcess) -> Endpoint:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return Endpoint(host, int(port))


def _freeze(server: ServerProcess, draw: random.Random) -> None:
    server.signal(signal.SIGSTOP)
    time.sleep(draw.choice([0.1, 0.5, 1.5]))
    server.signal(signal.SIGCONT)
