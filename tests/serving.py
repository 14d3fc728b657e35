"""A lease server as a process of its own, for tests."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.published import check_answer

START_SECONDS = 30.0
_PROJECT = Path(__file__).resolve().parents[1]


class ServerProcess:
    """`python -m htlease_server`, or another module, with its state in a folder."""

    def __init__(
        self,
        folder: Path,
        address: str = "127.0.0.1",
        options: Sequence[str | Path] = (),
        module: Sequence[str] = ("htlease_server",),
        files_max: int | None = None,
    ) -> None:
        """`files_max` is how many files and connections it may have open."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._listen = f"{address}:0"
        self._options = options
        self._module = module
        self._limit = () if files_max is None else ("prlimit", f"--nofile={files_max}")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL as clients of ours take it: networks of pools are trusted with tests' tokens."""
        is_local = self._listen.startswith("127.")
        return f"{'http' if is_local else 'http+insecure'}://{self._listen}"

    @property
    def web_url(self) -> str:
        """The URL as any HTTP client takes it."""
        return f"http://{self._listen}"

    @property
    def admin_token(self) -> str:
        return (self.folder / "admin.token").read_text().strip()

    def start(self) -> None:
        """Start, or start again on the same address and state."""
        log = self.folder / "server.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *(*self._limit, sys.executable, "-m", *self._module),
                    *("--listen", self._listen, "--state-dir", self.folder),
                    *self._options,
                ],
                stdout=output,
                stderr=output,
                cwd=_PROJECT,  # where a module of the tests is found
                env={name: value for name, value in os.environ.items() if "HTLEASE" not in name},
            )
        until = time.monotonic() + START_SECONDS
        # The log goes to the same file, and names other servers.
        while (
            found := re.search(r"^htlease server  \S+://([\d.]+:\d+)", log.read_text(), re.M)
        ) is None:
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.05)
        self._listen = found[1]

    def use_store(self, url: str) -> None:
        """Keep everything in another store from the next start on."""
        self._options = [*self._options, "--store", url]

    @property
    def pid(self) -> int:
        """The process that serves."""
        assert self._process is not None
        return self._process.pid

    @property
    def resident_mib(self) -> float:
        """How much memory the process has."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    @property
    def log_text(self) -> str:
        """What the server has written."""
        return (self.folder / "server.log").read_text()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the process; its address and state stay for the next start."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def end(self, number: int) -> int:
        """Let a signal end the process and return its exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(30)
        self._process = None
        return status

    def signal(self, number: int) -> None:
        """Send a signal, such as SIGSTOP for a server that hangs."""
        assert self._process is not None
        self._process.send_signal(number)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Exchange as the administrator; raises HTTPError."""
        request = urllib.request.Request(
            f"{self.web_url}/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.admin_token}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return _read(request, answer)

    def subjob(self, key: str) -> dict[str, Any]:
        """Return everything that is known of a subjob."""
        workflow, _, subjob = key.partition("/")
        return self.ask("GET", f"workflows/{workflow}/subjobs/{subjob}")

    def history(self, key: str) -> list[dict[str, Any]]:
        """Return a subjob's events in order."""
        workflow, _, subjob = key.partition("/")
        path = f"workflows/{workflow}/subjobs/{subjob}/history?limit=1000"
        events: list[dict[str, Any]] = self.ask("GET", path)["events"]
        return events

    def events(self, key: str, *names: str) -> list[dict[str, Any]]:
        """Return the events of these names in order."""
        return [event for event in self.history(key) if event["event"] in names]

    def command(self, key: str, call: str, **body: Any) -> dict[str, Any]:
        """Send a command as the administrator."""
        workflow, _, subjob = key.partition("/")
        body["request_id"] = os.urandom(8).hex()
        return self.ask("POST", f"workflows/{workflow}/subjobs/{subjob}/{call}", body)

    def knows(self, key: str) -> bool:
        """Tell whether the server has a subjob of exactly this key."""
        found = self.ask("GET", f"subjobs?id={quote(key.partition('/')[2], safe='')}")["subjobs"]
        return any(f"{one['workflow']}/{one['subjob']}" == key for one in found)

    def ask_as(self, token: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Post with a job's token and return status and document."""
        return exchange(f"{self.web_url}/v1/{path}", token, body)

    def operator_token(self) -> str:
        """Mint a token for a service such as the agent."""
        answer = self.ask("POST", "tokens", {"role": "operator"})
        token: str = answer["token"]
        return token

    def token(self, workflow: str, **wanted: Any) -> str:
        """Mint a job token."""
        answer = self.ask("POST", "tokens", {"workflow": workflow, **wanted})
        token: str = answer["token"]
        return token


def exchange(
    url: str, token: str | None, body: dict[str, Any] | None = None, method: str | None = None
) -> tuple[int, dict[str, Any]]:
    """Send one request and return status and document, of a refusal too."""
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, method=method, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, _read(request, answer)
    except urllib.error.HTTPError as refused:
        return refused.code, _read(request, refused)


def _read(
    request: urllib.request.Request, answer: http.client.HTTPResponse | urllib.error.HTTPError
) -> dict[str, Any]:
    body = answer.read()
    check_answer(request.get_method(), request.full_url, answer.status or 0, body)
    document: dict[str, Any] = json.loads(body)
    return document
