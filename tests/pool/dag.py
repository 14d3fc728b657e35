"""A DAG on a real pool whose nodes have htlease's scripts, by hand as the instrumenter writes it."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tenacity
from tests.pool.lab import PHASE_SCRIPT, PROJECT, Lab, write_for_job

from htlease_dagman.call import DEFER, SKIP, words_for
from htlease_minipool import PoolError
from htlease_minipool.processes import Process

#: DAGMan looks at its log every five seconds by default.
_CONFIG = "DAGMAN_USER_LOG_SCAN_INTERVAL = 1\n"
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
arguments = run --server {server} --ttl 10 --plan plan.toml
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


def install(lab: Lab) -> Path:
    """Put the scripts where the access point's own Python runs them; return the command."""
    site = lab.pool.directory / "site"
    site.mkdir(mode=0o755, exist_ok=True)
    library, command = site / "dagman-lib", site / "htlease-dag"
    if not command.exists():
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
        server: str | None = None,
        **settings: Any,
    ) -> None:
        lab.submitted += 1
        self.lab = lab
        self.workflow = f"{name}-{lab.submitted}"
        self.directory = lab.pool.job_directory(self.workflow)
        self.server = server or lab.server.url
        self.write("dagman.config", _CONFIG)
        self.write("job.sub", JOB.format(server=lab.server.url))
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
                    "server": self.server,
                    "token_file": "workflow.token",
                    "nodes": scripts or {},
                    "ttl_seconds": 10,
                    "wait_server_seconds": 2,
                    **settings,
                }
            ),
        )
        self.write("d.htlease.inc", self._include())
        self.write(
            "d.dag", "\n".join(["CONFIG dagman.config", "INCLUDE d.htlease.inc", *lines, ""])
        )
        self.job = ""

    def _include(self) -> str:
        command, settings = install(self.lab), self.directory / "d.htlease.json"
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
                f'VARS ALL_NODES HTLEASE_TOKEN_FILE="{self.directory}/d.htlease.d/tokens/$(JOB)/htlease.token"',
                "",
            ]
        )

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write a file of the job user's."""
        path = self.directory / name
        write_for_job(path, text.encode(), mode)
        return path

    def key(self, node: str) -> str:
        return f"{self.workflow}/{node}"

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
            pool.wait_for(
                lambda: pool.job_ad(self.job)["JobStatus"] in (3, 4),
                f"DAG {self.workflow} to end",
                timeout_seconds,
                interval_seconds=0.5,
            )
        except PoolError as error:
            raise AssertionError(f"{error}\n{self.explain()}") from None
        return int(pool.job_ad(self.job).get("ExitCode", -1))

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

    def dagman(self) -> list[Process]:
        return [
            p
            for p in self.lab.pool.processes()
            if p.program == "condor_dagman" and "d.dag" in p.argv and self._is_mine(p)
        ]

    def _is_mine(self, process: Process) -> bool:
        try:
            return Path(f"/proc/{process.pid}/cwd").readlink() == self.directory
        except OSError:
            return False

    # What is known

    def explain(self) -> str:
        """Return what the files say, for the message of a failed test."""
        parts = []
        for name in ("scripts.log", "d.dag.dagman.out"):
            path = self.directory / name
            if path.exists():
                parts += [f"--- {name}", path.read_text()[-6000:]]
        return "\n".join(parts)
