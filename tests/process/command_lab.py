"""The `htlease` command as a process, and a server that it was told to start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from htlease.rules.attempt import SubjobKey
from htlease.wire.lease_client import LeaseClient
from htlease.wire.transport import HttpTransport

NOTHING: Mapping[str, str] = {}
Done = subprocess.CompletedProcess[str]


def clean_environment(state: Path) -> dict[str, str]:
    """Return an environment in which nothing of the developer's shows through."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HTLEASE", "BEARER_TOKEN", "XDG_", "_CONDOR"))
    }
    return {
        **kept,
        "PYTHONPATH": ":".join(sys.path),
        "XDG_STATE_HOME": str(state),
        "XDG_RUNTIME_DIR": str(state),
        "CONDOR_CONFIG": "/dev/null",
    }


@dataclass(frozen=True)
class Lab:
    """A server and the command that speaks to it."""

    url: str
    environment: dict[str, str]

    def run(
        self, *arguments: str | Path, cwd: Path | None = None, more: Mapping[str, str] = NOTHING
    ) -> Done:
        return subprocess.run(
            [sys.executable, "-m", "htlease_cli.cli", *map(str, arguments)],
            env={**self.environment, "HTLEASE_URL": self.url, **more},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def ok(self, *arguments: str | Path, more: Mapping[str, str] = NOTHING) -> str:
        done = self.run(*arguments, more=more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, code: int, *arguments: str | Path, more: Mapping[str, str] = NOTHING) -> str:
        """Return the one sentence on stderr of a command that must fail."""
        done = self.run(*arguments, more=more)
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("htlease: "), done.stderr
        return lines[0]

    def client(self, key: str) -> LeaseClient:
        token = self.ok("token", "mint", "--workflow", key.partition("/")[0]).strip()
        return LeaseClient(HttpTransport(self.url, token), SubjobKey.parse(key))

    def wrapped(self, pyz: Path, key: str, *arguments: str, cwd: Path) -> Done:
        """Run a payload under the wrapper, with a token for its subjob alone."""
        workflow, _, subjob = key.partition("/")
        minted = self.ok("token", "mint", "--workflow", workflow, "--subjob", subjob)
        return subprocess.run(
            [sys.executable, pyz, "run", *arguments],
            env={
                **self.environment,
                "HTLEASE_URL": self.url,
                "HTLEASE_KEY": key,
                "BEARER_TOKEN": minted.strip(),
            },
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
        )
