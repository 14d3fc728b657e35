"""Where the scenarios play: a personal pool, a lease server, a transfer service, one workflow each.

The workflow's files are written as a user would write them and made into a DAG by the command that
users call. Runs where `make demo` runs.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import htlease
import htlease_admin
import htlease_dagman
from htlease.attempt import SubjobKey
from htlease.errors import HTLeaseError
from htlease_admin.lease_server import LeaseServer
from htlease_admin.scenarios import tool
from htlease_admin.scenarios.processes import ServerOfScenario, TransferService
from htlease_admin.settings import find_connection
from htlease_minipool import Pool
from htlease_minipool.files import JOB_USER_ID

DATA = "some input\n"
SECRET = "transfer-secret-"
TTL_SECONDS = 10
#: What the watchers need beside the standard library, and what `globus-sdk` needs.
_PACKAGES = ("tenacity",)
_GLOBUS_PACKAGES = (
    *("globus_sdk", "requests", "urllib3", "idna", "certifi", "charset_normalizer"),
    *("jwt", "typing_extensions"),
)
_NODE_NOTE = re.compile(r"DAG Node: (\S+)")
_SUBMITTED = re.compile(r"submitted to cluster (\d+)")
_EVENT_NAMES = {0: "submit", 1: "execute", 5: "terminate", 9: "abort", 12: "held"}

COMPUTE = """\
executable = compute.sh
transfer_input_files = scratch/input.dat
transfer_output_files = result.dat
transfer_output_remaps = "result.dat=scratch/result.dat"
should_transfer_files = YES
request_memory = 64
request_disk = 1
error = compute.err
log = compute.log
queue
"""
CLEAN_UP = """\
universe = local
executable = /bin/rm
arguments = -rf scratch
log = clean-up.log
queue
"""


class Stage:
    """A pool and the two servers; `say` prints what happens."""

    def __init__(
        self,
        name: str,
        suite: str | None,
        say: Callable[[str], None],
        report: Callable[[str], None],
    ) -> None:
        self.say = say
        roots = [Path(str(module.__file__)).parents[1] for module in _OURS]
        self.pool = Pool(name, suite, shared=roots, report=report)
        self._roots = roots
        self._has_globus = False

    def up(self) -> None:
        """Start everything from nothing."""
        self.pool.down(purge=True)
        self.pool.up()
        self.site = self.pool.directory / "site"
        self.site.mkdir(mode=0o755)
        address = self.pool.ap_address
        self.secret = SECRET + secrets.token_hex(8)
        self.credential = self.site / "transfer.token"
        self.replace_credential(self.secret)
        self.service = TransferService(
            address, self.site, self.credential, self.pool.work_dir.resolve()
        )
        self.service.start()
        state = self.site / "lease-server"
        state.mkdir(mode=0o700)
        self.lease_server = ServerOfScenario(
            "htlease_server", address, self.site / "lease-server.log", ["--state-dir", str(state)]
        )
        self.lease_server.start()
        self._write_program()
        self.say(f"HTCondor {self.pool.state()['version']}, lease server, transfer service: up")

    def down(self) -> None:
        """End everything, and keep nothing."""
        for name in ("service", "lease_server"):
            if hasattr(self, name):
                getattr(self, name).stop()
        self.pool.down(purge=True)

    def replace_credential(self, text: str) -> None:
        """Do what a person does who has logged in again."""
        new = self.credential.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o600)
        self.give(new)
        new.replace(self.credential)

    def server(self) -> LeaseServer:
        """Return the lease server as the administrator sees it."""
        token = self.site / "lease-server/admin.token"
        return LeaseServer.at(find_connection(self.lease_server.url, token, {}, os.getuid()))

    def give(self, path: Path) -> None:
        """Let a file belong to the pool's user."""
        if os.geteuid() == 0:
            os.chown(path, JOB_USER_ID, JOB_USER_ID)

    def run_htlease(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run the `htlease` command; what it writes then belongs to the pool's user."""
        admin_token = (self.site / "lease-server/admin.token").read_text().strip()
        done = subprocess.run(
            [sys.executable, "-m", "htlease_admin.cli", *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": ":".join(map(str, self._roots)),
                "HTLEASE_URL": self.lease_server.url,
                "BEARER_TOKEN": admin_token,
                "HOME": str(self.pool.work_dir),
                "XDG_STATE_HOME": str(self.pool.work_dir),
            },
        )
        for path in cwd.iterdir():
            self.give(path)
        return done

    def add_globus(self) -> None:
        """Let the watchers find `globus-sdk`."""
        if not self._has_globus:
            self._add_packages(_GLOBUS_PACKAGES)
            self._has_globus = True

    def _write_program(self) -> None:
        self._add_packages(_PACKAGES)
        self.program = self.site / "htlease-dag"
        places = ":".join(map(str, [*self._roots, self.site / "lib"]))
        self.program.write_text(
            "#!/bin/sh\n"
            f'export PYTHONPATH="{places}" PYTHONDONTWRITEBYTECODE=1\n'
            'shift\nexec python3 -m htlease_dagman.watch "$@"\n'
        )
        self.program.chmod(0o755)

    def _add_packages(self, names: Sequence[str]) -> None:
        for name in names:
            place = Path(str(importlib.import_module(name).__file__))
            if place.name == "__init__.py":
                shutil.copytree(
                    place.parent,
                    self.site / "lib" / name,
                    ignore=shutil.ignore_patterns("__pycache__", "*.so"),
                )
            else:
                shutil.copy(place, self.site / "lib" / place.name)


_OURS = (htlease, htlease_dagman, htlease_admin)


@dataclass(frozen=True)
class JobEvent:
    """One event of a node's job, in the order of the DAG's log."""

    node: str
    event: str
    job: str


class Workflow:
    """One staging workflow in a directory of its own."""

    def __init__(self, stage: Stage, name: str, watcher: str, backend: str) -> None:
        self.stage, self.pool = stage, stage.pool
        self.directory = stage.pool.job_directory(name)
        self.file = self.directory / "staging.toml"
        self.dag = self.directory / "staging.dag"
        self.notices = self.directory / "notices.txt"
        self.cluster = 0
        self.write(
            {
                "staging.toml": self._staging_text(watcher, backend),
                "compute.sub": COMPUTE,
                "compute.sh": "#!/bin/sh\ntr a-z A-Z < input.dat > result.dat\n",
                "clean-up.sub": CLEAN_UP,
                "archive/input.dat": DATA,
            }
        )

    def write(self, texts: dict[str, str]) -> None:
        """Write files of the user's."""
        for name, text in texts.items():
            path = self.directory / name
            if not path.parent.exists():
                path.parent.mkdir()
                self.stage.give(path.parent)
            path.write_text(text)
            path.chmod(0o755 if name.endswith(".sh") else 0o644)
            self.stage.give(path)

    def _staging_text(self, watcher: str, backend: str) -> str:
        service = self._globus_text() if backend == "globus" else self._command_text()
        return f"""\
{service}
[places.archive]
path = "{self.directory}/archive"
collection = "11111111-1111-4111-8111-111111111111"
[places.scratch]
path = "{self.directory}/scratch"
collection = "22222222-2222-4222-8222-222222222222"

[stage-in]
from = "archive"
to = "scratch"
files = ["input.dat"]
[compute]
submit = "compute.sub"
[stage-out]
from = "scratch"
to = "archive"
files = ["result.dat"]
[clean-up]
submit = "clean-up.sub"
[notice]
file = "notices.txt"
[watch]
watcher = "{watcher}"
poll_seconds = 1
short_seconds = 2
ttl_seconds = {TTL_SECONDS}
"""

    def _command_text(self) -> str:
        program = [
            *("/usr/bin/env", "python3", str(tool.__file__), self.stage.service.url),
            str(self.stage.credential),
        ]
        verbs = {
            "submit": ["submit", "{key}"],
            "poll": ["poll", "{id}"],
            "cancel": ["cancel", "{id}"],
            "find": ["find", "{key}"],
        }
        commands = [f"{verb} = {json.dumps([*program, *rest])}" for verb, rest in verbs.items()]
        return "\n".join(
            [
                '[service]\nbackend = "command"',
                *commands,
                "id = 'Task ID: (\\S+)'",
                "call_seconds = 5",
                f'action = "put a new token into {self.stage.credential}"',
                "[service.words]",
                'needs_action = "^INACTIVE"',
                'unknown = "^TaskNotFound"',
                'done = "^SUCCEEDED"',
                'retryable = "^FAILED ENDPOINT_TOO_BUSY|TooManyActiveTasks"',
                'failed = "^FAILED|PermissionDenied"',
                'running = "^ACTIVE"',
            ]
        )

    def _globus_text(self) -> str:
        return (
            f'[service]\nbackend = "globus"\nurl = "{self.stage.service.url}"\n'
            f'credential = "{self.stage.credential}"\n'
        )

    # ------------------------------------------------------------ what a user does

    def init(self, *options: str) -> str:
        """Make the DAG with `htlease stage init`; return what it printed."""
        return self.htlease(
            "stage", "init", self.file.name, "--program", str(self.stage.program), *options
        )

    def htlease(self, *arguments: str) -> str:
        """Run an `htlease` command in the workflow's directory; raises HTLeaseError."""
        done = self.stage.run_htlease(*arguments, cwd=self.directory)
        if done.returncode != 0:
            raise HTLeaseError(f"htlease {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def submit(self) -> None:
        """Submit the DAG, by the rescue DAG if there is one."""
        done = self.pool.run(["condor_submit_dag", self.dag.name], cwd=self.directory)
        found = _SUBMITTED.search(done.stdout + done.stderr)
        if found is None:
            raise HTLeaseError(f"condor_submit_dag said: {done.stdout} {done.stderr}")
        self.cluster = int(found[1])
        self.stage.say(f"condor_submit_dag {self.dag.name}: job {self.cluster}.0")

    # ------------------------------------------------------------ what is seen of it

    @property
    def workflow(self) -> str:
        document = json.loads(self.file.with_suffix(".htlease.json").read_text())
        workflow: str = document["workflow"]
        return workflow

    def key(self, node: str) -> SubjobKey:
        return SubjobKey(self.workflow, node)

    def subjob(self, node: str) -> dict[str, Any] | None:
        """Return what the lease server knows of a node, or None."""
        try:
            return self.stage.server().subjob(self.key(node))
        except HTLeaseError:
            return None

    def record(self, node: str) -> dict[str, Any]:
        """Return the saved record of a transfer; empty when there is none."""
        document = self.subjob(node)
        found: dict[str, Any] = json.loads((document or {}).get("details") or "{}")
        return found

    def wait_for(self, found: Callable[[], Any], what: str, timeout_seconds: float = 90) -> Any:
        """Wait for a true value and return it."""
        return self.pool.wait_for(found, what, timeout_seconds, interval_seconds=0.3)

    def wait_task(self, node: str = "stage-in") -> str:
        """Wait until a node's task is on record; return its ID."""
        task: str = self.wait_for(
            lambda: self.record(node).get("external_id"), f"the task of {node}"
        )
        self.stage.say(f"{node}: task {task} is on record")
        return task

    def wait_looks(self, count: int) -> None:
        """Wait until the service was asked so many times more."""
        begin = self.stage.service.counts().get("poll", 0)
        self.wait_for(
            lambda: self.stage.service.counts().get("poll", 0) >= begin + count,
            f"{count} looks at the task",
        )

    def wait_end(self, timeout_seconds: float = 150) -> int:
        """Wait for the end of DAGMan and return its exit code."""
        job = f"{self.cluster}.0"
        self.wait_for(
            lambda: self.pool.job_ad(job)["JobStatus"] in (3, 4), f"DAG {job}", timeout_seconds
        )
        code = int(self.pool.job_ad(job).get("ExitCode", -1))
        self.stage.say(f"the DAG has ended with {code}")
        return code

    def job_events(self) -> list[JobEvent]:
        """Return the events of all nodes' jobs, of all submissions of the DAG."""
        nodes: dict[int, str] = {}
        found = []
        for event in self.pool.events(self.dag.with_suffix(".dag.nodes.log")):
            note = _NODE_NOTE.search(event.text)
            if note:
                nodes[event.cluster] = note[1]
            name = _EVENT_NAMES.get(event.number)
            if name and event.cluster in nodes:
                found.append(JobEvent(nodes[event.cluster], name, f"{event.cluster}.{event.proc}"))
        return found

    def executions(self, node: str) -> int:
        """Return how often a node's job was started."""
        return sum(event.node == node and event.event == "execute" for event in self.job_events())

    def notice_count(self) -> int:
        """Return how many notices have been sent."""
        return self.notices.read_text().count("waits for you") if self.notices.exists() else 0

    def result(self) -> str | None:
        """Return what has arrived in the archive."""
        path = self.directory / "archive/result.dat"
        return path.read_text() if path.exists() else None
