"""A DAG on a real pool into which `htlease dag instrument` has put htlease, as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.pool.dag import Dag, install
from tests.pool.lab import Lab

#: The wrapper's job without a word of DAGMan or tokens: `instrument` adds them.
JOB = """\
executable = htlease-ep.pyz
arguments = run --server {server} --ttl 10 --plan plan.toml
should_transfer_files = YES
transfer_input_files = plan.toml, phase.py, {behaviour}
transfer_output_files = ""
request_cpus = 1
request_memory = 16
request_disk = 1
output = out.$(JOB).$(ProcId).$(RETRY)
error = err.$(JOB).$(ProcId).$(RETRY)
log = job.log
queue {count}
"""


def htlease(lab: Lab, directory: Path, *arguments: str | Path) -> None:
    """Run the command as an administrator who then gives all files to the job's user."""
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "CONDOR_CONFIG": "/dev/null"}
    environment["HTLEASE_URL"] = lab.server.url
    token = directory / "admin.token"
    token.write_text(lab.server.admin_token)
    command = [sys.executable, "-m", "htlease_cli.cli", "--admin-token-file", token, *arguments]
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60
    )
    token.unlink()
    assert done.returncode == 0, done.stderr
    owner = lab.pool.work_dir.stat()
    for path in [directory, *directory.rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid)


class Instrumented(Dag):
    """A DAG `d.dag` and further DAG files beside it."""

    def __init__(
        self,
        lab: Lab,
        name: str,
        lines: Sequence[str],
        *,
        files: Mapping[str, str] | None = None,
        behaviours: Mapping[str, Mapping[str, Any]] | None = None,
        sub_dags: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        """`behaviours` are by name of a submit file `NAME.sub`, `NAME*3.sub` for three jobs."""
        super().__init__(lab, name, lines)
        for made in ("d.htlease.json", "d.htlease.inc", "workflow.token", "job.sub"):
            (self.directory / made).unlink()
        for file, text in {**(files or {}), "d.dag": "\n".join([*lines, ""])}.items():
            self.write(file, text, 0o755 if file.endswith(".sh") else 0o644)
        for job, behaviour in {"job": {}, **(behaviours or {})}.items():
            self.job_file(job, behaviour)
        self._settings = settings
        for file in (*sub_dags, "d.dag"):
            self.instrument(file)
        self.workflow = self.settings("d.dag")["workflow"]

    def job_file(self, name: str, behaviour: Mapping[str, Any]) -> None:
        """Write a submit file; `behaviour` may differ by the job's number, as `{"0": {...}}`."""
        name, _, count = name.partition("*")
        place = self.directory / name
        place.mkdir()
        of_each = "$(ProcId)/" if count else ""
        for number in range(int(count or 1)):
            told = behaviour.get(str(number), {}) if count else behaviour
            document = json.dumps({"witness": self.lab.witness.url, **told})
            folder = place / str(number) if count else place
            folder.mkdir(exist_ok=True)
            (folder / "behaviour.json").write_text(document)
        text = JOB.format(
            server=self.lab.server.url,
            behaviour=f"{name}/{of_each}behaviour.json",
            count=count,
        )
        self.write(f"{name}.sub", text)

    def instrument(self, file: str) -> None:
        """Put htlease into a DAG file, with the test's shorter times."""
        program = install(self.lab)
        htlease(
            self.lab,
            self.directory,
            "dag",
            "instrument",
            file,
            "--script",
            program,
            "--defer",
            "2s",
            "--no-wrapper",
        )
        given = {"ttl_seconds": 10, "wait_server_seconds": 2, **self._settings}
        document = {**self.settings(file), **given}
        self.write(f"{file}.htlease.json", json.dumps(document))

    def settings(self, file: str) -> dict[str, Any]:
        """Return the settings of a DAG file."""
        path = self.directory / f"{file}.htlease.json"
        document: dict[str, Any] = json.loads(path.read_text())
        return document

    def explain(self) -> str:
        """Return what the files say, the scripts' and the nodes' own logs among them."""
        logs = (self.directory / "d.dag.htlease.log", *self.directory.glob("*.log"))
        return "\n".join(
            [*(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in logs), super().explain()]
        )

    def script_output(self, kind: str, node: str) -> str:
        """Return what all scripts said."""
        path = self.directory / "d.dag.htlease.log"
        return path.read_text() if path.exists() else ""
