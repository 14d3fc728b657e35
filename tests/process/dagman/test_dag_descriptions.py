"""`htlease dag instrument` counts a node's jobs as HTCondor does, whatever its submit file says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.condor_submit import CondorSubmit
from tests.serving import ServerProcess

DATA = Path(__file__).parents[2] / "data" / "submit"
PROGRAM = "/opt/htlease/bin/htlease-dag"
#: What DAGMan submits of each, seen on 23.9.6 and 25.14.1.
COUNTS = {
    "blank-items.sub": 3,
    "hash-items.sub": 3,
    "late.sub": 3,
    "directories.sub": 2,
    "latin1.sub": 1,
    "continued-queue.sub": 1,
    "universe-macro.sub": 1,
    "command-alias.sub": 1,
}


class Desk:
    """A directory with submit files, and the command on an access point of one version."""

    def __init__(self, native: CondorSubmit, place: Path, server: ServerProcess) -> None:
        self.native, self.place, self.server = native, place, server
        shutil.copytree(DATA, place)

    def instrument(self, dag: str) -> subprocess.CompletedProcess[str]:
        (self.place / "my.dag").write_text(dag)
        token = self.place / "admin.token"
        token.write_text(self.server.admin_token)
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("HTLEASE", "_CONDOR"))}
        environment = {
            **kept,
            **self.native.environment({}),
            "PYTHONPATH": ":".join(sys.path),
            "CONDOR_CONFIG": "/dev/null",
            "HTLEASE_URL": self.server.url,
            "HTLEASE_ADMIN_TOKEN_FILE": str(token),
        }
        words = [*("dag", "instrument", "my.dag"), *("--script", PROGRAM)]
        return subprocess.run(
            [sys.executable, "-m", "htlease_cli.cli", *words],
            cwd=self.place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def settings(self) -> dict[str, Any]:
        nodes: dict[str, Any] = json.loads((self.place / "my.dag.htlease.json").read_text())
        return nodes["nodes"]  # type: ignore[no-any-return]

    def include(self) -> str:
        return (self.place / "my.dag.htlease.inc").read_text()


@pytest.fixture(params=["trixie", "sid"])
def desk(request: pytest.FixtureRequest, tmp_path: Path, server: ServerProcess) -> Desk:
    return Desk(CondorSubmit(request.param, tmp_path), tmp_path / "run", server)


def test_nodes_have_as_many_jobs_as_htcondor_makes(desk: Desk) -> None:
    done = desk.instrument("".join(f"JOB {name.removesuffix('.sub')} {name}\n" for name in COUNTS))
    assert done.returncode == 0, done.stderr
    seen = {f"{node}.sub": one.get("jobs", 1) for node, one in desk.settings().items()}
    assert {name: seen.get(name, 1) for name in COUNTS} == COUNTS


def test_a_slice_is_taken_where_dagman_takes_it(desk: Desk) -> None:
    done = desk.instrument("JOB S slice.sub\n")
    if desk.native.suite == "sid":
        assert done.returncode == 0, done.stderr
        assert desk.settings()["S"]["jobs"] == 4
    else:
        assert done.returncode == 78 and "queues a slice" in done.stderr


def test_a_shell_command_is_taken_where_htcondor_knows_it(desk: Desk) -> None:
    done = desk.instrument("JOB S shell.sub\n")
    assert done.returncode == 0, done.stderr


def test_several_queue_statements_are_refused_by_name(desk: Desk) -> None:
    done = desk.instrument("JOB S statements.sub\n")
    assert done.returncode == 78 and "has 2 queue statements" in done.stderr


@pytest.mark.parametrize(
    "line", ["queue x from ./items.sh |\n", "include command : ./items.sh\nqueue\n"]
)
def test_commands_of_a_submit_file_are_not_run_only_to_look(desk: Desk, line: str) -> None:
    (desk.place / "items.sh").write_text("#!/bin/sh\necho ran >> ran\n")
    (desk.place / "items.sh").chmod(0o755)
    (desk.place / "c.sub").write_text(f"executable = count.sh\n{line}")
    done = desk.instrument("JOB C c.sub\n")
    assert done.returncode == 78 and "node C: it runs a command" in done.stderr
    assert not (desk.place / "ran").exists()


def test_a_program_that_an_earlier_node_makes_may_be_missing(desk: Desk) -> None:
    (desk.place / "later.sub").write_text("executable = made-later\nqueue 2\n")
    done = desk.instrument("JOB L later.sub\n")
    assert done.returncode == 0, done.stderr
    assert desk.settings()["L"]["jobs"] == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "universe = grid\ngrid_resource = batch slurm\nexecutable = count.sh\nqueue\n",
            "grid universe",
        ),
        (
            "universe = $(U)\nexecutable = count.sh\nU = grid\ngrid_resource = batch slurm\nqueue\n",
            "grid universe",
        ),
        ('executable = count.sh\ntransfer_input_files = "a, b"\nqueue\n', "in quotation marks"),
        ("executable = count.sh\ncopy_to_spool = true\nqueue\n", "copy_to_spool"),
        ('executable = count.sh\n+TransferInput = "a"\nqueue\n', "+TransferInput"),
    ],
)
def test_what_the_wrapper_cannot_run_is_left_alone_by_name(desk: Desk, text: str, why: str) -> None:
    (desk.place / "w.sub").write_text(text)
    done = desk.instrument("JOB W w.sub\nJOB V universe-number.sub\n")
    assert done.returncode == 0, done.stderr
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("htlease: node W runs without the wrapper: ") and why in sentence
    assert "VARS V APPEND" in desk.include() and "VARS W" not in desk.include()


def test_forced_files_of_the_wrapper_are_refused_by_name(desk: Desk) -> None:
    shutil.copy(desk.place / "count.sh", desk.place / "htlease-ep.pyz")
    text = 'executable = htlease-ep.pyz\n+TransferInput = "in.txt"\nqueue\n'
    (desk.place / "w.sub").write_text(text)
    done = desk.instrument("JOB W w.sub\n")
    assert done.returncode == 78 and "+TransferInput" in done.stderr
