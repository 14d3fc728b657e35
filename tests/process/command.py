"""The `htlease` command of this checkout, run as a process against a test's server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.serving import ServerProcess


def htlease(
    server: ServerProcess,
    *arguments: str | Path,
    cwd: Path | None = None,
    status: int = 0,
    stdout: Path | None = None,
) -> str:
    """Run the command, which has to end with `status`; return what it printed, errors last.

    With `stdout`, what it prints goes to that file while it runs.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HTLEASE")}
    done = subprocess.run(
        [sys.executable, "-m", "htlease_cli.cli", *map(str, arguments)],
        cwd=cwd,
        env={
            **kept,
            "PYTHONPATH": ":".join(path for path in sys.path if path),
            "HTLEASE_URL": server.url,
            "HTLEASE_ADMIN_TOKEN_FILE": str(server.folder / "admin.token"),
            "CONDOR_CONFIG": "/dev/null",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if stdout is None else stdout.open("w"),
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return (done.stdout or "") + done.stderr
