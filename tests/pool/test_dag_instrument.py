"""Instrumented DAGs that others wrote, read and run by DAGMan itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests import real_dags
from tests.pool.dag import install
from tests.pool.lab import Lab, write_for_job

from htlease_dagman.dagfile.parser import read_dag
from htlease_dagman.scripts.dag_settings import is_join_node

DAGS_TOGETHER_SECONDS = 420
#: Stands in for htlease-dag: says what it was called with, and where.
RECORDER = '#!/bin/sh\necho "$1 $4 $PWD" >> "$2.calls"\n'


@dataclass
class RealDag:
    """A DAG on the pool's access point."""

    lab: Lab
    name: str
    file: Path
    original: bytes
    cluster: str = ""

    def htlease(self, *arguments: str | Path) -> str:
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), "CONDOR_CONFIG": "/dev/null"}
        environment["HTLEASE_URL"] = self.lab.server.url
        token = self.file.parent / "admin.token"
        token.write_text(self.lab.server.admin_token)
        done = subprocess.run(
            [sys.executable, "-m", "htlease_cli.cli", "--admin-token-file", token, *arguments],
            cwd=self.file.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        token.unlink()
        assert done.returncode == 0, (self.name, done.stderr)
        return done.stdout

    def instrument(self, program: Path) -> None:
        options = ("--script", program, "--defer", "2s", "--no-wrapper")
        self.htlease("dag", "instrument", self.file.name, *options)
        owner = self.lab.pool.work_dir.stat()
        for path in [self.file.parent, *self.file.parent.rglob("*")]:
            os.chown(path, owner.st_uid, owner.st_gid)

    def condor_submit_dag(self, *options: str) -> str:
        done = self.lab.pool.run(
            ["condor_submit_dag", *options, self.file.name], cwd=self.file.parent, check=False
        )
        assert done.returncode == 0, (self.name, done.stdout, done.stderr)
        return done.stdout

    def submit(self) -> None:
        found = re.search(r"cluster (\d+)", self.condor_submit_dag("-f"))
        assert found is not None
        self.cluster = found[1]

    @property
    def said(self) -> str:
        """What DAGMan wrote."""
        path = self.file.with_name(self.file.name + ".dagman.out")
        return path.read_text() if path.exists() else ""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings file of the instrumented DAG."""
        path = self.file.with_name(self.file.name + ".htlease.json")
        document: dict[str, Any] = json.loads(path.read_text())
        return document

    @property
    def is_over(self) -> bool:
        return "EXITING WITH STATUS" in self.said

    @property
    def calls(self) -> Counter[tuple[str, str]]:
        """How often each script of each node was called."""
        path = self.file.with_name(self.file.name + ".htlease.json.calls")
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter((line.split()[0], line.split()[1]) for line in lines)


@pytest.fixture(scope="module")
def program(lab: Lab) -> Path:
    directory = lab.shared_directory("recorder")
    program = directory / "htlease-dag"
    program.write_text(RECORDER)
    program.chmod(0o755)
    return program


def variant(name: str, text: bytes) -> bytes:
    """Give the one DAG that is there twice the line ends of another system, and none at its end."""
    return text.replace(b"\n", b"\r\n").rstrip() if name == "diamond-crlf" else text


def test_dagman_runs_the_scripts_for_each_node_of_20_dags_that_others_wrote(
    lab: Lab, program: Path
) -> None:
    lab.pool.configure("ap", "dagman", "DAGMAN_USER_LOG_SCAN_INTERVAL = 1\n")
    dags = []
    for name in [*real_dags.MAIN, "diamond-crlf"]:
        place = lab.pool.work_dir / f"real-{name}"
        file = real_dags.lay_out(name.removesuffix("-crlf"), place)
        file.write_bytes(variant(name, file.read_bytes()))
        dag = RealDag(lab, name, file, file.read_bytes())
        dag.instrument(program)
        dag.condor_submit_dag("-no_submit", "-f")
        dag.submit()
        dags.append(dag)
    lab.wait_for(lambda: all(dag.is_over for dag in dags), "all DAGs to end", DAGS_TOGETHER_SECONDS)
    for dag in dags:
        assert "EXITING WITH STATUS 0" in dag.said, (dag.name, dag.said[-3000:])
        nodes = read_dag(dag.file, dag.file.parent, without_ours=True).nodes.values()
        expected = {node.name for node in nodes if node.kind != "service"}
        for kind in ("pre", "post"):
            called = {node: n for (which, node), n in dag.calls.items() if which == kind}
            ours = {node: n for node, n in called.items() if not is_join_node(node)}
            assert ours == dict.fromkeys(expected, 1), (dag.name, kind)
        dag.htlease("dag", "uninstrument", dag.file.name)
        assert dag.file.read_bytes() == dag.original, dag.name


def test_jobs_of_nodes_carry_the_key_of_their_subjob(lab: Lab, program: Path) -> None:
    place = lab.pool.job_directory("keyed")
    job = "executable = /bin/true\nuniverse = scheduler\nlog = nodes.log\n"
    (place / "one.sub").write_text(job + 'MY.HTLeaseKey = "other/key"\nqueue\n')
    (place / "three.sub").write_text(job + "queue 3\n")
    (place / "in.dag").write_text("JOB X one.sub\n")
    file = place / "keyed.dag"
    file.write_text("SPLICE S in.dag\nJOB A three.sub\nFINAL F one.sub\n")
    dag = RealDag(lab, "keyed", file, file.read_bytes())
    dag.instrument(program)
    dag.submit()
    lab.wait_for(lambda: dag.is_over, "the DAG to end", 120)
    history = lab.pool.run(
        [
            "condor_history",
            "-constraint",
            f"DAGManJobId == {dag.cluster}",
            "-af",
            "HTLeaseKey",
            "HTLeaseURL",
        ]
    ).stdout
    keys = {tuple(line.split()) for line in history.splitlines()}
    names = ("S+X", "A.0", "A.1", "A.2", "F")
    assert keys == {(f"{dag.settings['workflow']}/{name}", lab.server.url) for name in names}


def test_an_instrumented_dag_completes_its_subjobs_and_runs_nothing_when_submitted_again(
    lab: Lab,
) -> None:
    place = lab.pool.job_directory("whole")
    write_for_job(place / "htlease-ep.pyz", lab.pyz.read_bytes(), 0o755)
    job = [
        "executable = htlease-ep.pyz",
        f"arguments = \"run --server {lab.server.url} --ttl 10 -- /bin/sh -c 'echo $(JOB) ran > note.$(JOB)'\"",
        "output = out.$(JOB)",
        "error = err.$(JOB)",
        "should_transfer_files = YES",
        "request_memory = 16",
        "request_disk = 1",
        "log = job.log",
        "queue",
    ]
    (place / "job.sub").write_text("\n".join(job) + "\n")
    (place / "own.sh").write_text('#!/bin/sh\necho "$@" >> own.log\n')
    (place / "own.sh").chmod(0o755)
    (place / "in.dag").write_text("JOB X job.sub\nSCRIPT POST X own.sh $NODE $RETURN\n")
    file = place / "whole.dag"
    file.write_text("JOB A job.sub\nSPLICE S in.dag\nPARENT A CHILD S\n")
    dag = RealDag(lab, "whole", file, file.read_bytes())
    dag.instrument(install(lab))
    for _ in range(2):
        dag.submit()
        lab.wait_for(lambda: dag.is_over, "the DAG to end", 150)
        said = [path.read_text() for path in (*place.glob("err.*"), *place.glob("*.htlease.log"))]
        assert "EXITING WITH STATUS 0" in dag.said, (said, dag.said[-3000:])
        assert (place / "own.log").read_text() == "S+X 0\n"
        assert len(lab.pool.events(place / "job.log", 0)) == 2
        file.with_name("whole.dag.dagman.out").unlink()
    workflow = dag.settings["workflow"]
    for node in ("A", "S+X"):
        assert lab.server.subjob(f"{workflow}/{node}")["status"] == "complete"
        assert (place / f"note.{node}").read_text() == f"{node} ran\n"
