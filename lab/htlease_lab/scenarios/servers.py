"""The two servers of a scenario as processes of their own, to be killed and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from htlease.errors import HTLeaseError
from htlease.wire.transport import INSECURE

_START_SECONDS = 30.0
_URL = re.compile(r"://([\d.]+:\d+)")


class ServerOfScenario:
    """A Python module that serves and prints its URL; it keeps its address over a restart."""

    def __init__(self, module: str, address: str, log: Path, options: Sequence[str]) -> None:
        self._module, self._options, self._log = module, options, log
        self._listen = f"{address}:0"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens, once it has started."""
        return f"http://{self._listen}"

    @property
    def url_for_tokens(self) -> str:
        """The same for clients of the lease server: the network of the environment is trusted."""
        is_local = self._listen.startswith("127.")
        return f"{'http' if is_local else INSECURE}://{self._listen}"

    def start(self) -> None:
        """Start and wait until it listens."""
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module, "--listen", self._listen, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={name: value for name, value in os.environ.items() if "HTLEASE" not in name},
            )
        until = time.monotonic() + _START_SECONDS
        while (found := _URL.search(self._log.read_text())) is None:
            if self._process.poll() is not None or time.monotonic() > until:
                raise HTLeaseError(f"{self._module} did not start: {self._log.read_text()}")
            time.sleep(0.05)
        self._listen = found[1]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, with SIGKILL as a crash would."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None


class TransferService(ServerOfScenario):
    """The transfer service and what goes wrong with it."""

    def __init__(self, address: str, directory: Path, token_file: Path, root: Path) -> None:
        super().__init__(
            "htlease_lab.scenarios.transfer_service",
            address,
            directory / "service.log",
            ["--root", str(root), "--token-file", str(token_file)],
        )
        self._token_file = token_file

    def control(self, **faults: Any) -> dict[str, Any]:
        """Set faults; return the counts of calls and the tasks with their status."""
        return self.call("/control", faults)

    def repair(self, **faults: Any) -> None:
        """Put the service in order, but for some faults."""
        in_order: dict[str, Any] = {
            "paused": False,
            "away": False,
            "credential": "ok",
            "lose_replies": 0,
            "leave_after_loss": False,
            "fail": None,
        }
        self.control(**{**in_order, **faults})

    def counts(self) -> dict[str, int]:
        """Return how often each call was made; `accepted` counts the tasks that came of it."""
        counts: dict[str, int] = self.control()["counts"]
        return counts

    def submit(self, pairs: Sequence[tuple[str, str]]) -> str:
        """Submit a transfer by hand, outside of any workflow, and return its task ID."""
        items = [{"source_path": source, "destination_path": target} for source, target in pairs]
        submission = self.call("/v0.10/submission_id")["value"]
        body = {"submission_id": submission, "label": "by hand", "DATA": items}
        task: str = self.call("/v0.10/transfer", body)["task_id"]
        return task

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Exchange once with the service."""
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token_file.read_text().strip()}"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            document: dict[str, Any] = json.load(answer)
        return document
