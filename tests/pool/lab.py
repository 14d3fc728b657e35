"""A lease server, a witness and test jobs on a real pool."""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.serving import ServerProcess

from htlease_lab.pool import Pool

PROJECT = Path(__file__).resolve().parents[2]
#: Where the packages are that `htlease` on an access point imports.
COMMAND_ROOTS = tuple(
    str(PROJECT / folder) for folder in ("core", "wrappers", "dagman", "cli", "agent")
)
PHASE_SCRIPT = Path(__file__).with_name("payloads") / "phase.py"

#: What most test jobs do: one phase done once before the rest, then the usual three.
PLAN = """\
[[phase]]
name = "register"
run = ["./phase.py"]
restart = "once"
[[phase]]
name = "stage-in"
run = ["./phase.py"]
restart = "redo"
[[phase]]
name = "compute"
run = ["./phase.py"]
restart = "resume"
[[phase]]
name = "stage-out"
run = ["./phase.py"]
restart = "once"
exclusive = true
"""


class Witness:
    """Hears from payloads, wherever they run; the lease server knows nothing of it."""

    def __init__(self, address: str) -> None:
        notes: list[dict[str, Any]] = []
        lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                note = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    notes.append({**note, "at": time.monotonic()})
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self._notes, self._lock = notes, lock
        self._server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.url = f"http://{address}:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def notes(
        self, key: str, what: str | None = None, phase: str | None = None
    ) -> list[dict[str, Any]]:
        """Return what was told of a subjob, oldest first."""
        with self._lock:
            return [
                note
                for note in self._notes
                if note["key"] == key
                and what in (None, note["what"])
                and phase in (None, note["phase"])
            ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class TestJob:
    """A submitted job and the subjob it works on."""

    __test__ = False
    lab: Lab
    job: str
    key: str
    directory: Path

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def is_known(self) -> bool:
        """Tell whether the server has heard of the subjob."""
        return self.lab.server.knows(self.key)

    def subjob(self) -> dict[str, Any]:
        return self.lab.server.subjob(self.key)

    def history(self) -> list[dict[str, Any]]:
        return self.lab.server.history(self.key)

    def grants(self) -> list[dict[str, Any]]:
        return [event for event in self.history() if event["event"] == "lease-acquired"]

    def told(self, what: str | None = None, phase: str | None = None) -> list[dict[str, Any]]:
        return self.lab.witness.notes(self.key, what, phase)

    def wait_told(
        self, what: str, phase: str | None = None, count: int = 1, attempt: int | None = None
    ) -> dict[str, Any]:
        def heard() -> list[dict[str, Any]]:
            notes = self.told(what, phase)
            return [note for note in notes if attempt in (None, note["attempt"])][count - 1 : count]

        note: dict[str, Any] = self.lab.wait_for(
            heard, f"{count} times {what} of {phase} by {attempt} for {self.key}", 120
        )[0]
        return note

    def wait_saved(self, phase: str) -> None:
        """Wait until a blocked attempt stands in a phase and its details have been saved."""
        self.wait_told("alive", phase)
        self.lab.wait_for(
            lambda: self.subjob()["details_phase"] == phase, f"{self.key} to save details", 30
        )

    def wait_status(self, status: str, timeout_seconds: float = 150) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            document = self.subjob() if self.is_known() else {"status": "not known"}
            return document if document["status"] == status else None

        document: dict[str, Any] = self.lab.wait_for(
            reached, f"{self.key} to be {status}", timeout_seconds
        )
        return document

    def wait_gone(self, timeout_seconds: float = 60) -> dict[str, Any]:
        """Wait until the job has left the queue, and return its last ad."""
        self.lab.pool.wait_for(
            lambda: self.lab.pool.job_ad(self.job)["JobStatus"] in (3, 4),
            f"job {self.job} to end",
            timeout_seconds,
        )
        return self.lab.pool.job_ad(self.job)

    def explain(self) -> str:
        """Return all that is known, for the message of a failed test."""
        lines = [json.dumps(event) for event in self.history()]
        for name in ("out", "err", "log"):
            path = self.directory / name
            if path.exists():
                lines += [f"--- {name}", path.read_text()[-3000:]]
        return "\n".join(lines)


@dataclass
class Lab:
    """What a pool test works with."""

    pool: Pool
    server: ServerProcess
    witness: Witness
    pyz: Path
    submitted: int = 0
    tokens: dict[str, str] = field(default_factory=dict)

    def wait_for(self, found: Callable[[], Any], what: str, timeout_seconds: float) -> Any:
        return self.pool.wait_for(found, what, timeout_seconds, interval_seconds=0.1)

    def token(self, workflow: str) -> str:
        if workflow not in self.tokens:
            self.tokens[workflow] = self.server.token(workflow, ttl_seconds=7200)
        return self.tokens[workflow]

    def shared_directory(self, name: str) -> Path:
        """Make a directory of the job user's that all machines of the pool see."""
        directory = self.pool.directory / "shared-files" / name
        directory.mkdir(parents=True)
        owner = self.pool.work_dir.stat()
        os.chown(directory, owner.st_uid, owner.st_gid)
        return directory

    def submit(
        self,
        name: str,
        behaviour: Mapping[str, Any] | None = None,
        *,
        plan: str = PLAN,
        ttl_seconds: float = 20,
        lines: Sequence[str] = (),
        arguments: str = "--plan plan.toml",
        files: Mapping[str, bytes] | None = None,
        pin: str | None = None,
        is_transferred: bool = True,
        is_on_shared_files: bool = False,
    ) -> TestJob:
        """Submit a job with the two changed lines of the README and what the test adds."""
        self.submitted += 1
        workflow = f"{name}-{self.submitted}"
        if is_on_shared_files:
            directory = self.shared_directory(workflow)
        else:
            directory = self.pool.job_directory(workflow)
        write_for_job(directory / "htlease-ep.pyz", self.pyz.read_bytes(), 0o755)
        write_for_job(directory / "phase.py", PHASE_SCRIPT.read_bytes(), 0o755)
        write_for_job(directory / "plan.toml", plan.encode())
        told = {"witness": self.witness.url, **(behaviour or {})}
        write_for_job(directory / "behaviour.json", json.dumps(told).encode())
        write_for_job(directory / "htlease.token", self.token(workflow).encode(), 0o600)
        inputs = {"plan.toml", "phase.py", "behaviour.json", "htlease.token", *(files or {})}
        for file_name, content in (files or {}).items():
            write_for_job(directory / file_name, content, 0o755)
        transfer = [
            "should_transfer_files = YES",
            f"transfer_input_files = {', '.join(sorted(inputs))}",
        ]
        machine = f'requirements = Machine == "{self.pool.ep_host(pin)}"' if pin else ""
        description = "\n".join(
            [
                "executable = htlease-ep.pyz",
                f"arguments = run --server {self.server.url} --ttl {ttl_seconds:g} {arguments}",
                *(transfer if is_transferred else ()),
                "request_cpus = 1",
                "request_memory = 64",
                "request_disk = 1",
                "job_lease_duration = 40",
                "output = out",
                "error = err",
                "log = log",
                machine,
                *lines,
                "queue",
            ]
        )
        cluster = self.pool.submit(description + "\n", cwd=directory)
        return TestJob(self, f"{cluster}.0", f"{workflow}/{cluster}.0", directory)


def write_for_job(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file that belongs to the job's user, like its directory."""
    path.write_bytes(content)
    path.chmod(mode)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
