"""`htlease store` on the stores of real servers, and jobs that run meanwhile."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.process.wire_call import Caller
from tests.serving import ServerProcess

NONCE, OTHER, THIRD = (f"nonce-of-attempt-{number}-0123456789" for number in (1, 2, 3))


def store_of(server: ServerProcess) -> Path:
    return server.folder / "htlease.sqlite3"


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "htlease_cli.cli", "store", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def done(name: str, *arguments: str | Path, store: Path) -> str:
    """Run a command that has to work, and return what it says."""
    ran = command(name, *arguments, "--store", f"sqlite:///{store}")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def refused(name: str, *arguments: str | Path, store: Path) -> str:
    """Run a command that has to be refused, and return the one sentence that says why."""
    ran = command(name, *arguments, "--store", f"sqlite:///{store}")
    assert ran.returncode == 78, (ran.stdout, ran.stderr)
    assert ran.stderr.count("\n") == 1 and "Traceback" not in ran.stderr
    return ran.stderr


class Jobs(threading.Thread):
    """Runs small jobs one after the other until told to stop; keeps what was acknowledged."""

    def __init__(self, server: ServerProcess, number: int) -> None:
        super().__init__()
        self._admin = Caller(server.url, server.admin_token)
        self._number = number
        self._is_over = threading.Event()
        self.complete: list[str] = []

    def run(self) -> None:
        job = 0
        while not self._is_over.is_set():
            name, pair = f"s-{self._number}-{job}", {"nonce": NONCE, "fence": 1}
            path = f"/v1/workflows/load/subjobs/{name}"
            plan = {"phases": [{"name": "push", "restart": "once"}]}
            steps: list[tuple[str, dict[str, Any]]] = [
                ("acquire", {"nonce": NONCE, "plan": plan, "global_job_id": f"ap#{name}#1"}),
                ("phases/push/enter", pair),
                ("renew", {**pair, "details": "x" * 500}),
                ("phases/push/complete", pair),
            ]
            for call, body in steps:
                assert self._admin.post(f"{path}/{call}", **body).status == 200
            self.complete.append(name)
            job += 1

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def rows(store: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of a store; the order in which events of different subjobs came is lost."""
    with sqlite3.connect(store) as db:
        tables = [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        found = {}
        for table in tables:
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            kept = [name for name in columns if (table, name) != ("history", "id")]
            kept = [name for name in kept if (table, name) != ("subjob_count", "changed_at")]
            found[table] = sorted(db.execute(f"SELECT {', '.join(kept)} FROM {table}"), key=repr)
    db.close()
    found["subjob_count"] = [row for row in found["subjob_count"] if row[2]]
    del found["current_run"], found["store_place"]  # a moved store has had no server yet
    return found
