"""One staging workflow of a scenario: files as a user writes them, and what becomes of them."""

from __future__ import annotations

import itertools
import json
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from htlease.errors import HTLeaseError
from htlease.rules.attempt import SubjobKey
from htlease_lab.scenarios.environment import Environment

DATA = "some input\n"
TTL_SECONDS = 10
#: As 23.9.6 and as 25.14.1 write it into a submit event.
_NODE_NOTE = re.compile(r'(?:DAG Node: |DAGNodeName = ")([^\s"]+)')
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
executable = clean-up.sh
arguments = scratch $(seconds:0)
log = clean-up.log
queue
"""
CLEAN_UP_SCRIPT = """\
#!/bin/sh
echo begun >> clean-up.txt
sleep "$2"
rm -rf "$1"
echo done >> clean-up.txt
"""


@dataclass(frozen=True)
class JobEvent:
    """One event of a node's job, in the order of the DAG's log."""

    node: str
    event: str
    job: str


class Workflow:
    """One staging workflow in a directory of its own."""

    def __init__(self, environment: Environment, name: str) -> None:
        """Make the directory."""
        self.environment, self.pool = environment, environment.pool
        self.directory = environment.pool.job_directory(name)
        self.file = self.directory / "staging.toml"
        self.dag = self.directory / "staging.dag"
        self.notices = self.directory / "notices.txt"
        self.cluster = 0

    def write_all(self, watcher: str, backend: str) -> None:
        """Write what the scenarios need."""
        self.write(
            {
                "staging.toml": self._staging_text(watcher, backend),
                "compute.sub": COMPUTE,
                "compute.sh": "#!/bin/sh\ntr a-z A-Z < input.dat > result.dat\n",
                "clean-up.sub": CLEAN_UP,
                "clean-up.sh": CLEAN_UP_SCRIPT,
                "archive/input.dat": DATA,
            }
        )

    def write(self, texts: dict[str, str]) -> None:
        """Write files of the user's."""
        for name, text in texts.items():
            path = self.directory / name
            if not path.parent.exists():
                path.parent.mkdir()
                self.environment.give(path.parent)
            path.write_text(text)
            path.chmod(0o755 if name.endswith(".sh") else 0o644)
            self.environment.give(path)

    def _staging_text(self, watcher: str, backend: str) -> str:
        texts = {"globus": self._globus_text, "command": self._command_text}
        service = texts[backend]() if backend in texts else f'[service]\nbackend = "{backend}"\n'
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
            *("/usr/bin/env", "python3", str(self.environment.tool), self.environment.service.url),
            str(self.environment.credential),
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
                f'action = "put a new token into {self.environment.credential}"',
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
            f'[service]\nbackend = "globus"\nurl = "{self.environment.service.url}"\n'
            f'credential = "{self.environment.credential}"\n'
        )

    # ------------------------------------------------------------ what a user does

    def init(self, *options: str) -> str:
        """Make the DAG with `htlease stage init`; return what it printed."""
        return self.htlease(
            *("stage", "init", self.file.name, "--program", str(self.environment.program)),
            *("--pyz", str(self.environment.wrapper()), *options),
        )

    def htlease(self, *arguments: str) -> str:
        """Run an `htlease` command in the workflow's directory; raises HTLeaseError."""
        done = self.environment.run_htlease(*arguments, cwd=self.directory)
        if done.returncode != 0:
            raise HTLeaseError(f"htlease {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def refusal(self, *arguments: str) -> str:
        """Run an `htlease` command that is to be refused; return what it said."""
        done = self.environment.run_htlease(*arguments, cwd=self.directory)
        return f"exit code {done.returncode}: {done.stderr.strip()}"

    def kill_watcher(self) -> None:
        """SIGKILL the process of the stage-in's job; HTCondor sees it end."""
        starter = self.pool.starter(self.job_of("stage-in"))
        for process in self.pool.family(starter)[1:]:
            process.send(signal.SIGKILL)

    def kill_watchers(self) -> int:
        """SIGKILL every watcher of this workflow, job or script; return how many there were."""
        watchers = [
            process
            for process in self.pool.processes()
            if "watch" in process.argv and self.file.name in process.argv
        ]
        for process in watchers:
            process.send(signal.SIGKILL)
        return len(watchers)

    def submit(self, *options: str) -> None:
        """Submit the DAG, by the rescue DAG if there is one."""
        done = self.pool.run(["condor_submit_dag", *options, self.dag.name], cwd=self.directory)
        found = _SUBMITTED.search(done.stdout + done.stderr)
        if found is None:
            raise HTLeaseError(f"condor_submit_dag said: {done.stdout} {done.stderr}")
        self.cluster = int(found[1])
        words = " ".join(["condor_submit_dag", *options, self.dag.name])
        self.environment.say(f"  {words}: job {self.cluster}.0")

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
            return self.environment.server().subjob(self.key(node))
        except HTLeaseError:
            return None

    def history(self, node: str) -> list[dict[str, Any]]:
        """Return all that happened to a node, oldest first; nothing if it is not known."""
        try:
            found: list[dict[str, Any]] = self.environment.server().history(self.key(node))[
                "events"
            ]
        except HTLeaseError:
            return []
        return found

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
        self.environment.say(f"  {node}: task {task} is on record")
        return task

    def wait_looks(self, count: int) -> None:
        """Wait until the service was asked so many times more."""
        before = self.tally()
        self.wait_for(lambda: self.tally(before)["poll"] >= count, f"{count} looks at the task")

    def wait_turned_away(self, count: int) -> None:
        """Wait until the service has refused so many calls more."""
        before = self.tally()
        self.wait_for(lambda: self.tally(before)["turned_away"] >= count, f"{count} refused calls")

    def tally(self, before: dict[str, int] | None = None) -> dict[str, int]:
        """Return how often calls were made since another tally."""
        names = ("submit", "accepted", "duplicate", "poll", "find", "cancel", "turned_away")
        counts = self.environment.service.counts()
        return {name: counts.get(name, 0) - (before or {}).get(name, 0) for name in names}

    def wait_end(self, timeout_seconds: float = 150) -> int:
        """Wait for the end of DAGMan and return its exit code."""
        job = f"{self.cluster}.0"
        self.wait_for(
            lambda: self.pool.job_ad(job)["JobStatus"] in (3, 4), f"DAG {job}", timeout_seconds
        )
        return int(self.pool.job_ad(job).get("ExitCode", -1))

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

    def job_of(self, node: str) -> str:
        """Return the newest job of a node."""
        return next(event.job for event in reversed(self.job_events()) if event.node == node)

    def started(self) -> set[str]:
        """Return the nodes whose job has been started."""
        return {event.node for event in self.job_events() if event.event == "execute"}

    def order(self) -> list[str]:
        """Return the nodes in the order in which their jobs were started, repeats left out."""
        nodes = [event.node for event in self.job_events() if event.event == "execute"]
        return [node for node, _ in itertools.groupby(nodes)]

    def executions(self, node: str) -> int:
        """Return how often a node's job was started."""
        return sum(event.node == node and event.event == "execute" for event in self.job_events())

    def jobs_started(self, node: str) -> set[str]:
        """Return the node's jobs that were started, however often."""
        events = self.job_events()
        return {e.job for e in events if e.node == node and e.event == "execute"}

    def cleaned_up(self, word: str) -> int:
        """Return how often the clean-up's program has begun, or is done."""
        path = self.directory / "clean-up.txt"
        return path.read_text().split().count(word) if path.exists() else 0

    def notice_count(self) -> int:
        """Return how many notices have been sent."""
        return self.notices.read_text().count("waits for you") if self.notices.exists() else 0

    def result(self) -> str | None:
        """Return what has arrived in the archive."""
        path = self.directory / "archive/result.dat"
        return path.read_text() if path.exists() else None
