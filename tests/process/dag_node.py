"""One node of a DAG whose scripts run as processes, as DAGMan would run them, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.serving import ServerProcess

from htlease_dagman.scripts.invocation import MACROS


class DagNode:
    """Node `A` of a DAG in a directory of its own; its user's scripts note each run in `ran`."""

    def __init__(self, directory: Path, server: ServerProcess, workflow: str) -> None:
        directory.mkdir()
        self.directory = directory
        self.server = server
        self.key = f"{workflow}/A"
        self.workflow = workflow
        self.settings: dict[str, Any] = {
            "version": 1,
            "workflow": workflow,
            "server": server.url,
            "token_file": "workflow.token",
            "nodes": {"A": {}},
            "ttl_seconds": 5,
            "wait_server_seconds": 10,
        }
        token = directory / "workflow.token"
        token.write_text(server.token(workflow, ttl_seconds=3600))
        token.chmod(0o600)
        #: DAGMan gives its scripts its job ad.
        self.has_ad = True
        self.dag_job(100)

    def dag_job(self, cluster: int, starts: int = 0) -> None:
        """Let the scripts be started by a certain start of a certain run of DAGMan."""
        self.dag = f"ap1.test#{cluster}.0#{1795225000 + cluster}"
        self.cluster = cluster
        (self.directory / "dagman.ad").write_text(
            f'ClusterId = {cluster}\nGlobalJobId = "{self.dag}"\nNumJobStarts = {starts}\n'
        )

    def chain(self, kind: str, text: str, *words: str, **more: int) -> None:
        """Give the node a script of the user's; it notes that it ran, with its arguments."""
        script = self.directory / f"{kind}.sh"
        script.write_text(f'#!/bin/sh\necho {kind} "$@" >> ran\n{text}\n')
        script.chmod(0o755)
        self.settings["nodes"]["A"] |= {kind: [script.name, *words], **more}

    @property
    def ran(self) -> list[str]:
        """What the user's scripts noted."""
        path = self.directory / "ran"
        return path.read_text().splitlines() if path.exists() else []

    def start(self, kind: str, retry: int = 0, **macros: object) -> subprocess.Popen[str]:
        """Start a script of the node."""
        (self.directory / "d.htlease.json").write_text(json.dumps(self.settings))
        given = {
            "JOB": "A",
            "RETRY": retry,
            "MAX_RETRIES": 1,
            "DAGID": self.cluster,
            "JOBID": f"{self.cluster + 1}.0",
            "RETURN": 0,
            **macros,
        }
        names = dict.fromkeys([*MACROS[kind], *macros])
        words = [str(word) for name in names for word in (name, given[name])]
        return subprocess.Popen(
            [sys.executable, "-m", "htlease_dagman.cli", kind, "d.htlease.json", *words],
            cwd=self.directory,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                **({"_CONDOR_JOB_AD": str(self.directory / "dagman.ad")} if self.has_ad else {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, kind: str, retry: int = 0, **macros: object) -> tuple[int, str]:
        """Run a script to its end and return its exit status and what it said."""
        process = self.start(kind, retry, **macros)
        said = process.communicate(timeout=60)[0]
        return process.returncode, said

    @property
    def job_token_file(self) -> Path:
        return self.token_file("A")

    def token_file(self, subjob: str) -> Path:
        """The file that the job of the node, or one of its jobs, takes along."""
        return self.directory / "d.htlease.d" / "tokens" / subjob / "htlease.token"

    # The node's job, with the token that PRE left for it

    def job_id(self, number: int = 0) -> str:
        return f"ap1.test#{self.cluster + 1 + number}.0#{1795225100 + self.cluster}"

    def job(self, call: str, number: int = 0, subjob: str = "A", **body: Any) -> dict[str, Any]:
        """Send a command as the node's job does; fails when it is refused."""
        token = self.token_file(subjob).read_text().strip()
        body |= {"request_id": os.urandom(8).hex(), "nonce": f"nonce-of-the-job-{number:04}"}
        path = f"workflows/{self.workflow}/subjobs/{subjob}/{call}"
        status, answer = self.server.ask_as(token, path, body)
        assert status == 200, answer
        return answer

    def acquire(
        self, number: int = 0, restart: str = "redo", ttl_seconds: float = 60, subjob: str = "A"
    ) -> int:
        """Let the job acquire and enter its one phase; return its fence."""
        fence: int = self.job(
            "acquire",
            number,
            subjob,
            global_job_id=self.job_id(number),
            evidence={"job_starts": 1, "shadow_starts": 1},
            plan={"phases": [{"name": "run", "restart": restart}]},
            ttl_seconds=ttl_seconds,
        )["fence"]
        self.job("phases/run/enter", number, subjob, fence=fence)
        return fence

    def do_job(
        self, number: int = 0, restart: str = "redo", is_done: bool = True, subjob: str = "A"
    ) -> None:
        """Let the job do all that it does."""
        fence = self.acquire(number, restart, subjob=subjob)
        if is_done:
            self.job("phases/run/complete", number, subjob, fence=fence)
        self.job("exited", number, subjob, fence=fence, exit_code=0)

    # The server

    @property
    def subjob(self) -> dict[str, Any]:
        return self.server.subjob(self.key)

    @property
    def closings(self) -> list[tuple[str, str]]:
        return [
            (event["by"], event["outcome"])
            for event in self.server.events(self.key, "subjob-closed")
        ]


def ended(node: DagNode, *processes: object) -> list[int]:
    """Return the exit statuses of processes, once all have ended."""
    return [process.wait(60) for process in processes]  # type: ignore[attr-defined]


NewNode = Callable[[ServerProcess], DagNode]
