"""Watchers, a lease server and a transfer service as processes, without HTCondor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.serving import ServerProcess

from htlease_lab.scenarios import transfer_tool
from htlease_lab.scenarios.servers import TransferService

PROJECT = Path(__file__).resolve().parents[2]
SECRET = "transfer-secret-3e1fd7"
COLLECTIONS = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222")


@dataclass
class Bench:
    """One staging workflow and those who watch its transfers."""

    folder: Path
    server: ServerProcess
    backend: str
    watchers: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.data = self.folder / "data"
        (self.data / "archive").mkdir(parents=True)
        (self.data / "archive/input.dat").write_text("some input\n")
        self.credential = self.folder / "credential"
        self.log_in(SECRET)
        self.service = TransferService("127.0.0.1", self.folder, self.credential, self.data)
        self.service.start()
        self.file = self.folder / "staging.toml"
        (self.folder / "compute.sub").write_text("queue\n")
        (self.folder / "clean-up.sub").write_text("queue\n")
        self.write()

    def log_in(self, token: str, mode: int = 0o600) -> None:
        """Put a token where the back-ends look for it."""
        self.credential.touch(mode=0o600)
        self.credential.write_text(token)
        self.credential.chmod(mode)

    def write(self, old: str = "", new: str = "", more: str = "") -> None:
        """Write the staging file, with something in it replaced."""
        texts = {"globus": self._globus, "command": self._command, "run": self._run}
        service = texts[self.backend]()
        text = f"""\
{service}
[places.archive]
path = "{self.data}/archive"
collection = "{COLLECTIONS[0]}"
[places.scratch]
path = "{self.data}/scratch"
collection = "{COLLECTIONS[1]}"
[stage-in]
from = "archive"
to = "scratch"
files = ["input.dat"]
[compute]
submit = "compute.sub"
[clean-up]
submit = "clean-up.sub"
[notice]
file = "notices.txt"
[watch]
poll_seconds = 0.2
short_seconds = 0.5
ttl_seconds = 10
{more}"""
        assert old in text
        self.file.write_text(text.replace(old, new) if old else text)

    def _globus(self) -> str:
        return (
            f'[service]\nbackend = "globus"\nurl = "{self.service.url}"\ncredential = "credential"'
        )

    def _run(self) -> str:
        copies = "mkdir -p $2; while [ -e $1.hold ]; do sleep 0.1; done; cp -r $1/. $2"
        command = json.dumps(["/bin/sh", "-c", copies, "sh", "{from}", "{to}"])
        return f'[service]\nbackend = "run"\nrun = {command}'

    def _command(self) -> str:
        argv = [sys.executable, str(transfer_tool.__file__), self.service.url, str(self.credential)]
        words = {
            **{verb: [*argv, verb, "{id}"] for verb in ("poll", "cancel")},
            **{verb: [*argv, verb, "{key}"] for verb in ("submit", "find")},
        }
        lines = [f"{verb} = {json.dumps(command)}" for verb, command in words.items()]
        return "\n".join(
            [
                '[service]\nbackend = "command"\nid = "Task ID: (.*)"\ncall_seconds = 5',
                'action = "log in again"',
                *lines,
                '[service.words]\ndone = "^SUCCEEDED"\nrunning = "^ACTIVE"\nunknown = "^TaskNotFound"',
                'needs_action = "^INACTIVE"\nfailed = "^FAILED|PermissionDenied"\nretryable = "TooMany"',
            ]
        )

    def htlease(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the `htlease` command beside the staging file."""
        return subprocess.run(
            [sys.executable, "-m", "htlease_cli.cli", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "HTLEASE_URL": self.server.url,
                "BEARER_TOKEN": self.server.admin_token,
            },
        )

    def init(self, *options: str) -> None:
        done = self.htlease("stage", "init", "staging.toml", "--program", "/bin/true", *options)
        assert done.returncode == 0, done.stderr

    @property
    def key(self) -> str:
        settings = json.loads((self.folder / "staging.htlease.json").read_text())
        return f"{settings['workflow']}/stage-in"

    def watch(
        self, *options: str, starts: int | None = 0, node: str = "stage-in", cluster: int = 7
    ) -> subprocess.Popen[str]:
        """Start a watcher; `cluster` and `starts` are its job's `ClusterId` and `NumJobStarts`."""
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        if starts is not None:
            ad = self.folder / f"job-{len(self.watchers)}.ad"
            ad.write_text(
                f'GlobalJobId = "ap#{cluster}.0#1795225431"\nNumJobStarts = {starts}\n'
                f"NumShadowStarts = {starts + 1}\n"
            )
            environ["_CONDOR_JOB_AD"] = str(ad)
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "htlease_dagman.staging.watch_command", "staging.toml"),
                *(node, *options),
            ],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )
        self.watchers.append(process)
        return process

    def end_of(self, watcher: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for a watcher's end; return its exit code and what it said."""
        said = watcher.communicate(timeout=60)[1]
        return watcher.returncode, said

    def subjob(self) -> dict[str, Any]:
        return self.server.subjob(self.key)

    def record(self) -> dict[str, Any]:
        """Return what is on record of the transfer."""
        found: dict[str, Any] = {}
        if self.server.knows(self.key):
            found = json.loads(self.subjob()["details"] or "{}")
        return found

    def counts(self) -> dict[str, int]:
        """Return how often the service was asked what; 0 for what it never was."""
        names = ("submit", "accepted", "duplicate", "poll", "find", "cancel", "turned_away", "away")
        return {name: self.service.counts().get(name, 0) for name in names}

    def until(self, found: Callable[[], Any], what: str) -> Any:
        """Wait for a true value."""
        end = time.monotonic() + 60
        while not (value := found()):
            assert time.monotonic() < end, f"waited in vain for {what}"
            time.sleep(0.05)
        return value

    def until_task(self) -> str:
        """Wait until a task is on record."""
        task: str = self.until(lambda: self.record().get("external_id"), "a task on record")
        return task

    def until_looks(self, count: int) -> None:
        before = self.counts()["poll"]
        self.until(lambda: self.counts()["poll"] >= before + count, f"{count} more looks")

    def close(self) -> None:
        for watcher in self.watchers:
            if watcher.poll() is None:
                watcher.kill()
            watcher.communicate()
        self.service.stop()
