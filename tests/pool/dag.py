"""A DAG on a real pool whose nodes have htlease's scripts, by hand as the instrumenter writes it."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import tenacity
from tests.pool.lab import COMMAND_ROOTS, PHASE_SCRIPT, PROJECT, Lab, write_for_job

from htlease_dagman.scripts.invocation import DEFER, SKIP, words_for
from htlease_lab.pool import PoolError
from htlease_lab.pool.processes import Process

DEFER_SECONDS = 2

#: What most nodes do; the last phase is `redo`, so that only POST can complete the subjob.
PLAN = """\
[[phase]]
name = "register"
run = ["./phase.py"]
restart = "once"
[[phase]]
name = "compute"
run = ["./phase.py"]
restart = "resume"
"""
JOB = """\
executable = htlease-ep.pyz
arguments = run --server {server} --ttl {ttl} --plan plan.toml
should_transfer_files = YES
transfer_input_files = plan.toml, phase.py, behaviour.json, $(HTLEASE_TOKEN_FILE)
transfer_output_files = ""
request_cpus = 1
request_memory = 16
request_disk = 1
job_lease_duration = 40
output = out.$(JOB).$(RETRY)
error = err.$(JOB).$(RETRY)
log = job.log
queue
"""


#: A script of the user's: notes that it runs, waits for leave, notes that it has ended.
WAIT = """\
#!/bin/sh
echo begin "$@" >> ran
while [ ! -e "go-$1" ]; do sleep 0.1; done
echo end "$@" >> ran
"""


def install(lab: Lab) -> Path:
    """Put the scripts where the access point's own Python runs them; return the command."""
    site = lab.pool.directory / "site"
    site.mkdir(mode=0o755, exist_ok=True)
    library, command = site / "dagman-lib", site / "htlease-dag"
    if not command.exists():
        # DAGMan looks at its log every five seconds by default; 25.14.1 does not take this from
        # a DAG's CONFIG file. A DAGMan that was held and released cools down for five minutes there.
        lab.pool.configure(
            "ap",
            "dagman",
            "DAGMAN_USER_LOG_SCAN_INTERVAL = 1\nSCHEDULER_UNIVERSE_COOL_DOWN_DURATION = 1\n",
        )
        for package in (PROJECT / "core/htlease", PROJECT / "dagman/htlease_dagman"):
            shutil.copytree(package, library / package.name)
        shutil.copytree(Path(tenacity.__file__).parent, library / "tenacity")
        lab.pool.run(["python3", "-m", "compileall", "-q", str(library)], as_root=True)
        command.write_text(
            "#!/usr/bin/python3 -IS\n"
            f"import sys\nsys.path.insert(0, {str(library)!r})\n"
            "from htlease_dagman.cli import main\nsys.exit(main())\n"
        )
        command.chmod(0o755)
    return command


class Dag:
    """One DAG in a directory of its own."""

    def __init__(
        self,
        lab: Lab,
        name: str,
        lines: Sequence[str],
        *,
        scripts: Mapping[str, Mapping[str, Any]] | None = None,
        behaviour: Mapping[str, Any] | None = None,
        job_ttl_seconds: int = 10,
        **settings: Any,
    ) -> None:
        lab.submitted += 1
        self.lab = lab
        self.workflow = f"{name}-{lab.submitted}"
        self.directory = lab.pool.job_directory(self.workflow)
        self.write("job.sub", JOB.format(server=lab.server.url, ttl=job_ttl_seconds))
        write_for_job(self.directory / "htlease-ep.pyz", lab.pyz.read_bytes(), 0o755)
        write_for_job(self.directory / "phase.py", PHASE_SCRIPT.read_bytes(), 0o755)
        self.write("plan.toml", PLAN)
        told = {"witness": lab.witness.url, **(behaviour or {})}
        self.write("behaviour.json", json.dumps(told))
        self.write("workflow.token", lab.token(self.workflow), 0o600)
        self.write(
            "d.htlease.json",
            json.dumps(
                {
                    "version": 1,
                    "workflow": self.workflow,
                    "server": lab.server.url,
                    "token_file": "workflow.token",
                    "nodes": scripts or {},
                    "ttl_seconds": 10,
                    "wait_server_seconds": 2,
                    **settings,
                }
            ),
        )
        self.write("d.htlease.inc", self._include())
        self.write("wait.sh", WAIT, 0o755)
        self.write("d.dag", "\n".join(["INCLUDE d.htlease.inc", *lines, ""]))
        self.job = ""

    def _include(self) -> str:
        command, settings = install(self.lab), str(self.directory / "d.htlease.json")
        script = {
            kind: " ".join([str(command), *words_for(kind, settings)])
            for kind in ("pre", "post", "hold")
        }
        defer = f"SCRIPT DEFER {DEFER} {DEFER_SECONDS} DEBUG scripts.log ALL"
        return "\n".join(
            [
                f"{defer} PRE ALL_NODES {script['pre']}",
                f"{defer} POST ALL_NODES {script['post']}",
                f"SCRIPT HOLD ALL_NODES {script['hold']}",
                f"PRE_SKIP ALL_NODES {SKIP}",
                f'VARS ALL_NODES APPEND My.HTLeaseKey="\\"{self.workflow}/$(JOB)\\""',
                f'VARS ALL_NODES APPEND HTLEASE_TOKEN_FILE="{self.directory}/d.htlease.d/tokens/$(JOB)/htlease.token"',
                "",
            ]
        )

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write a file of the job user's."""
        path = self.directory / name
        write_for_job(path, text.encode(), mode)
        return path

    def htlease(self, *arguments: str, status: int = 0) -> str:
        """Run `htlease` on the access point as the DAG's user; return what it printed."""
        library = self.directory / "lib"
        library.mkdir(exist_ok=True)
        for package in (click, tenacity):
            place = Path(str(package.__file__)).parent
            if not (library / place.name).exists():
                (library / place.name).symlink_to(place)
        self.write("admin.token", self.lab.server.admin_token, 0o600)
        done = self.lab.pool.run(
            ["python3", "-m", "htlease_cli.cli", *arguments],
            cwd=self.directory,
            check=False,
            env={
                "PYTHONPATH": ":".join([*COMMAND_ROOTS, str(library)]),
                "HOME": str(self.directory),
                "HTLEASE_URL": self.lab.server.url,
                "HTLEASE_ADMIN_TOKEN_FILE": str(self.directory / "admin.token"),
            },
        )
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def key(self, node: str) -> str:
        return f"{self.workflow}/{node}"

    @property
    def ran(self) -> list[str]:
        """What `wait.sh` noted."""
        path = self.directory / "ran"
        return path.read_text().splitlines() if path.exists() else []

    def let_go(self, name: str) -> None:
        """Give one `wait.sh` leave to end."""
        self.write(f"go-{name}", "")

    # Running

    def submit(self, *options: str) -> str:
        """Submit and return the id of DAGMan's job; a DAG that had ended well needs `-f`."""
        done = self.lab.pool.run(["condor_submit_dag", *options, "d.dag"], cwd=self.directory)
        found = re.search(r"submitted to cluster (\d+)", done.stdout)
        assert found, done.stdout
        self.job = f"{found[1]}.0"
        return self.job

    def wait(self, timeout_seconds: float = 120) -> int:
        """Wait until DAGMan's job has left the queue and return its exit status."""
        pool = self.lab.pool
        try:
            ad = pool.wait_for(
                self.last_ad, f"DAG {self.workflow} to end", timeout_seconds, interval_seconds=0.5
            )
        except PoolError as error:
            raise AssertionError(f"{error}\n{self.explain()}") from None
        assert ad is not None
        return int(ad.get("ExitCode", -1))

    def last_ad(self) -> dict[str, Any] | None:
        """Return the ad of DAGMan's job once it has ended."""
        try:
            ad = self.lab.pool.job_ad(self.job)
        except PoolError:
            return None  # a schedd that was killed is not back yet
        return ad if ad["JobStatus"] in (3, 4) else None

    def processes(self, kind: str, node: str) -> list[Process]:
        """Return the running scripts of ours of one kind and node."""
        return [
            p
            for p in self.lab.pool.processes()
            if any(word.endswith("/htlease-dag") for word in p.argv)
            and kind in p.argv
            and node in p.argv
            and str(self.directory / "d.htlease.json") in p.argv
        ]

    def kill_dagman(self) -> None:
        """SIGKILL this DAG's DAGMan; the schedd starts another."""
        for process in self.dagman():
            process.send(signal.SIGKILL)

    def kill_schedd(self) -> None:
        """SIGKILL the schedd, and with it at once DAGMan and its scripts.

        The master kills what a dead schedd leaves one by one, in any order. Whoever outlives its
        child by a moment takes that for a failure of the child's, and puts it on record: our POST
        script of the user's, DAGMan of ours.
        """
        for process in self.dagman():
            process.send(signal.SIGSTOP)
            for one in self.lab.pool.family(process):
                one.send(signal.SIGSTOP)
        self.lab.pool.kill_schedd()

    def dagman(self) -> list[Process]:
        return [
            p
            for p in self.lab.pool.processes()
            if "-Lockfile" in p.argv and "d.dag" in p.argv and self._is_mine(p)
        ]

    def _is_mine(self, process: Process) -> bool:
        try:
            return Path(f"/proc/{process.pid}/cwd").readlink() == self.directory
        except OSError:
            return False

    def post_call(self, node: str) -> tuple[list[str], dict[str, str]]:
        """Return command and environment of the POST script that runs for a node."""
        process = self.lab.wait_for(lambda: self.processes("post", node), "POST to run", 60)[0]
        command = next(n for n, word in enumerate(process.argv) if word.endswith("/htlease-dag"))
        variables = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
        named = dict(variable.split("=", 1) for variable in variables if "=" in variable)
        # DAGMan's ad goes with DAGMan.
        ad = self.write("dagman.ad", Path(named["_CONDOR_JOB_AD"]).read_text())
        return list(process.argv[command:]), {"_CONDOR_JOB_AD": str(ad)}

    # What is known

    def script_output(self, kind: str, node: str) -> str:
        """Return what the last script of a kind and node said, as DAGMan captured it."""
        path = self.directory / "scripts.log"
        parts = path.read_text().split("*** ") if path.exists() else []
        ours = [part for part in parts if part.startswith(f"Node={node} Type={kind} ")]
        return ours[-1] if ours else ""

    def explain(self) -> str:
        """Return what the files say, for the message of a failed test."""
        parts = []
        for name in ("scripts.log", "d.dag.dagman.out"):
            path = self.directory / name
            if path.exists():
                parts += [f"--- {name}", path.read_text()[-2500:]]
        return "\n".join(parts)
