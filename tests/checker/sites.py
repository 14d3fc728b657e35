"""Sites to be tested: what runs, and what is done to it."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

from tests.checker.line import Endpoint
from tests.checker.record import Outage
from tests.serving import ServerProcess


class SqliteSite:
    """One server on one SQLite file, killed, stopped and frozen at random.

    `broken` names a rule that this server breaks, of those in `tests.checker.broken`.
    """

    def __init__(self, folder: Path, broken: str | None = None) -> None:
        module = ["htlease_server"] if broken is None else ["tests.checker.broken", broken]
        self._server = ServerProcess(folder, module=module)
        self._server.start()

    @property
    def endpoints(self) -> list[Endpoint]:
        host, _, port = self._server.url.removeprefix("http://").partition(":")
        return [Endpoint(host, int(port))]

    @property
    def token(self) -> str:
        return self._server.admin_token

    def disturb(self, draw: random.Random) -> Outage | None:
        """Kill it most often; sometimes stop it as an administrator does, or freeze it."""
        what = draw.choice(["kill", "kill", "kill", "stop", "freeze"])
        if what == "freeze":
            self._server.signal(signal.SIGSTOP)
            time.sleep(draw.choice([0.1, 0.5, 1.5]))
            self._server.signal(signal.SIGCONT)
            return None
        down_at = time.monotonic()
        self._server.stop(signal.SIGKILL if what == "kill" else signal.SIGTERM)
        gone_at = time.monotonic()
        time.sleep(draw.choice([0.0, 0.0, 0.5, 2.0]))
        started_at = time.monotonic()
        self._server.start()
        return Outage(down_at, gone_at, started_at)

    def ask(self, method: str, path: str) -> dict[str, Any]:
        return self._server.ask(method, path)

    def close(self) -> None:
        self._server.stop()
