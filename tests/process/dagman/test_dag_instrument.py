"""`htlease dag` as a process, against a real server process."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests import real_dags
from tests.serving import ServerProcess, exchange

PROGRAM = "/opt/htlease/bin/htlease-dag"
DAG = b"# mine\nJOB A a.sub\nJOB B b.sub\nSCRIPT PRE B check.sh $RETRY\nPARENT A CHILD B\n"
JOB = "executable = /bin/true\nqueue\n"
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Desk:
    """A directory with a DAG, and the command."""

    place: Path
    server: ServerProcess
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.token_file.write_text(self.server.admin_token)

    @property
    def token_file(self) -> Path:
        return self.place.with_name("admin.token")

    @property
    def dag(self) -> Path:
        return self.place / "my.dag"

    def run(self, *arguments: str | Path, **how: Any) -> Done:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HTLEASE", "BEARER_TOKEN", "_CONDOR"))
        }
        return subprocess.run(
            [sys.executable, "-m", "htlease_cli.cli", "dag", *arguments],
            **{"cwd": self.place, **how},
            env={
                **clean,
                "PYTHONPATH": ":".join(sys.path),
                "CONDOR_CONFIG": "/dev/null",
                "HTLEASE_URL": self.server.url,
                "HTLEASE_ADMIN_TOKEN_FILE": str(self.token_file),
                **self.environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )

    def ok(self, *arguments: str | Path, **how: Any) -> str:
        done = self.run(*arguments, **how)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def instrument(self, *options: str | Path) -> str:
        return self.ok("instrument", "my.dag", "--script", PROGRAM, *options)

    def refused(self, code: int, *arguments: str | Path, **how: Any) -> str:
        """Return the one sentence of a command that must fail and leave everything alone."""
        before = self.files()
        done = self.run(*arguments, **how)
        assert done.returncode == code, (done.stdout, done.stderr)
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("htlease: "), done.stderr
        assert self.files() == before
        return lines[0]

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.place)): path.read_bytes()
            for path in self.place.rglob("*")
            if path.is_file()
        }

    def settings(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.place / "my.dag.htlease.json").read_text())
        return document


@pytest.fixture
def desk(tmp_path: Path, server: ServerProcess) -> Iterator[Desk]:
    place = tmp_path / "run"
    place.mkdir()
    (place / "my.dag").write_bytes(DAG)
    (place / "a.sub").write_text(JOB)
    (place / "b.sub").write_text("executable = /bin/true\nqueue 2\n")
    yield Desk(place, server)


def test_a_dag_becomes_a_workflow_and_its_file_gets_one_line(desk: Desk) -> None:
    desk.instrument("--workflow", "one-line")
    assert desk.dag.read_bytes() == DAG + f"INCLUDE {desk.dag}.htlease.inc\n".encode()
    made = set(desk.files()) - {"a.sub", "b.sub", "my.dag"}
    (wrapper,) = (name for name in made if name.endswith("/htlease-ep.pyz"))
    assert made - {wrapper} == {f"my.dag.htlease.{ending}" for ending in ("inc", "json", "token")}
    assert (desk.place / "a.sub").read_text() == JOB
    include = (desk.place / "my.dag.htlease.inc").read_text()
    for node in "AB":
        (line,) = (line for line in include.splitlines() if line.startswith(f"VARS {node} APPEND"))
        assert 'MY.Cmd="$(htlease_Cmd)"' in line
    assert f'htlease_Cmd="\\"{desk.place / wrapper}\\""' in include
    assert desk.settings()["workflow"] == "one-line"
    assert desk.settings()["nodes"] == {"B": {"pre": ["check.sh", "$RETRY"], "jobs": 2}}
    workflow = desk.server.ask("GET", "workflows/one-line")
    assert workflow["labels"] == {"dag": "my.dag"}
    assert workflow["structure"]["dependencies"] == [{"parents": ["A"], "children": ["B"]}]


def test_the_workflows_token_is_its_owners_alone_and_acts_for_its_nodes(desk: Desk) -> None:
    desk.instrument("--workflow", "token")
    file = desk.place / "my.dag.htlease.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_text().strip()
    for name, content in desk.files().items():
        assert name == file.name or token.encode() not in content
    path = f"{desk.server.url}/v1/workflows/%s/subjobs/A/enroll"
    body = {"request_id": "r1", "global_job_id": "dag#1/0", "retry": 0}
    assert exchange(path % "token", token, body)[0] == 200
    assert exchange(path % "other", token, body)[0] == 403


def test_instrumenting_again_changes_nothing_and_uninstrumenting_everything_back(
    desk: Desk,
) -> None:
    desk.instrument()
    once = desk.files()
    assert "changed: nothing" in desk.instrument()
    again = desk.files()
    del once["my.dag.htlease.token"], again["my.dag.htlease.token"]
    assert again == once
    desk.ok("uninstrument", "my.dag")
    assert desk.dag.read_bytes() == DAG
    assert set(desk.files()) == {"a.sub", "b.sub", "my.dag", "my.dag.htlease.json"}


def test_the_workflow_outlives_uninstrument_but_not_a_copy(desk: Desk, tmp_path: Path) -> None:
    desk.instrument("--workflow", "kept")
    desk.ok("uninstrument", "my.dag")
    desk.instrument()
    assert desk.settings()["workflow"] == "kept"
    shutil.copytree(desk.place, tmp_path / "copy")
    copy = Desk(tmp_path / "copy", desk.server)
    copy.instrument("--workflow", "copied")
    assert copy.settings()["workflow"] == "copied"
    assert copy.dag.read_bytes() == DAG + f"INCLUDE {copy.dag}.htlease.inc\n".encode()


def test_check_shows_the_changes_and_makes_none(desk: Desk) -> None:
    before = desk.files()
    shown = desk.ok("check", "my.dag", "--script", PROGRAM)
    assert f"+INCLUDE {desk.dag}.htlease.inc" in shown
    assert "+PRE_SKIP ALL_NODES" in shown
    assert desk.ok("instrument", "my.dag", "--check", "--script", PROGRAM).count("+INCLUDE") == 1
    assert desk.files() == before
    desk.instrument()
    assert desk.ok("check", "my.dag", "--script", PROGRAM) == "Nothing would change.\n"


def test_mode_and_links_of_the_dag_file_stay(desk: Desk) -> None:
    real = desk.place / "real.dag"
    desk.dag.rename(real)
    real.chmod(0o640)
    desk.dag.symlink_to(real)
    desk.instrument()
    assert desk.dag.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    desk.ok("uninstrument", "my.dag")
    assert real.read_bytes() == DAG


@pytest.mark.parametrize("name", real_dags.MAIN)
def test_dags_of_others_are_instrumented_and_come_back(
    tmp_path: Path, server: ServerProcess, name: str
) -> None:
    file = real_dags.lay_out(name, tmp_path / "dag")
    original = file.read_bytes()
    desk = Desk(file.parent, server)
    desk.ok("instrument", file.name, "--script", PROGRAM)
    assert file.read_bytes().startswith(original.rstrip())
    desk.ok("uninstrument", file.name)
    assert file.read_bytes() == original


def test_a_dag_may_be_named_from_elsewhere_as_for_usedagdir(desk: Desk) -> None:
    arguments = ("run/my.dag", "--script", PROGRAM)
    above = desk.place.parent
    assert "a.sub" in desk.refused(78, "instrument", *arguments, cwd=above)
    desk.ok("instrument", *arguments, "--use-dag-dir", cwd=above)
    assert desk.dag.read_bytes().count(b"INCLUDE") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("JOB A a.sub\nJOB C none.sub\n", "/run/none.sub of node C: No such file"),
        ("JOB A a.sub\nPARENT A CHILD Q\n", "my.dag, line 2: there is no node Q"),
        ("JOB A a.sub\nJOB C a.sub\nPARENT A CHILD C\nPARENT C CHILD A\n", "my.dag, line 4: A -> C -> A"),
        ("JOB A a.sub\nSPLICE S none.dag\n", "my.dag, line 2: none.dag: No such file"),
        ('JOB A a.sub\nVARS A x="\n', "my.dag, line 2: a quotation mark"),
        ("JOB a/b a.sub\n", "my.dag, line 1: node 'a/b' cannot be a subjob"),
        ("JOB B b.sub\nJOB B.1 a.sub\n", "my.dag, line 2: nodes B and B.1 would both be B.1"),
        ("JOB A two.sub\n", "/run/two.sub of node A: has 2 queue"),
        ("JOB A {\nexecutable = x\nqueue foo bar\n}\n", "my.dag, line 1: submit description of node A: "),
        ("JOB A a.sub\nSCRIPT POST A /opt/htlease-dag post\n", "my.dag, line 2: node A has scripts"),
        ("JOB A a.sub\nABORT-DAG-ON A 0 RETURN 1\n", "my.dag, line 2: ABORT-DAG-ON A 0"),
        ("", "no node"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_file_and_line(desk: Desk, text: str, words: str) -> None:
    desk.dag.write_text(text)
    (desk.place / "two.sub").write_text("executable = x\nqueue\nqueue\n")
    assert words in desk.refused(78, "instrument", "my.dag", "--script", PROGRAM)


def test_a_splice_that_is_instrumented_itself_is_named(desk: Desk) -> None:
    (desk.place / "whole.dag").write_text("SPLICE S my.dag\n")
    desk.instrument()
    message = desk.refused(78, "instrument", "whole.dag", "--script", PROGRAM)
    assert "uninstrument my.dag" in message


def test_submit_files_may_come_later_if_said(desk: Desk) -> None:
    desk.dag.write_text("JOB A later.sub\n")
    assert "--missing-ok" in desk.refused(78, "instrument", "my.dag", "--script", PROGRAM)
    desk.instrument("--missing-ok")
    assert desk.settings()["nodes"] == {}


def test_jobs_that_run_the_wrapper_are_sent_a_token(desk: Desk) -> None:
    (desk.place / "b.sub").write_text(
        "executable = htlease-ep.pyz\ntransfer_input_files = x\nqueue\n"
    )
    desk.instrument("--no-wrapper")
    include = (desk.place / "my.dag.htlease.inc").read_text()
    token = f"{desk.dag}.htlease.d/tokens/$(JOB)$(htlease_proc)/htlease.token"
    files = (
        'VARS {0} PREPEND transfer_input_fileS="$(TransferInputFiles:)"\n'
        'VARS {0} APPEND Transfer_input_files="$(transfer_input_files),{1}"\n'
    )
    assert files.format("B", token) in include
    assert "VARS A" not in include.replace("VARS ALL", "")
    desk.instrument("--send-tokens", "--no-wrapper")
    include = (desk.place / "my.dag.htlease.inc").read_text()
    assert files.format("A", token) in include
    desk.instrument()
    include = (desk.place / "my.dag.htlease.inc").read_text()
    assert files.format("B", token) in include, "it has the wrapper already"


def test_only_a_description_in_the_dag_has_its_own_files_written_out(desk: Desk) -> None:
    """Before it 23.9 has no VARS, and a macro that names itself would never be expanded."""
    desk.dag.write_text(
        "JOB A {\nexecutable = x\ntransfer_input_files = in, more\n}\n"
        "SUBMIT-DESCRIPTION d {\nexecutable = x\n}\nJOB B d\n"
    )
    desk.instrument()
    include = (desk.place / "my.dag.htlease.inc").read_text()
    assert " PREPEND " not in include
    assert 'Transfer_input_files="in, more$EVAL(htlease_inputs)"' in include
    assert 'Transfer_input_files="$(TransferInputFiles:)$EVAL(htlease_inputs)"' in include


def test_a_node_that_forces_what_the_wrapper_needs_is_left_alone_by_name(desk: Desk) -> None:
    (desk.place / "a.sub").write_text('executable = x\n+TransferInput = "in"\nqueue\n')
    desk.dag.write_text('JOB A a.sub\nJOB B b.sub\nVARS B My.Cmd="\\"/bin/x\\""\n')
    done = desk.run("instrument", "my.dag", "--script", PROGRAM)
    assert done.returncode == 0
    first, second = done.stderr.splitlines()
    alone = "htlease: node {0} runs without the wrapper: {1}; or use the hooks"
    assert first == alone.format("A", "+TransferInput; write it as `transfer_input_files`")
    assert second == alone.format("B", "+Cmd; write it as `executable`")
    include = (desk.place / "my.dag.htlease.inc").read_text()
    assert "VARS A" not in include.replace("VARS ALL", "") and "MY.Cmd=" not in include


def test_without_a_server_nothing_is_written(desk: Desk) -> None:
    away = Desk(desk.place, desk.server, {"HTLEASE_URL": "http://127.0.0.1:9"})
    assert "does not answer" in away.refused(75, "instrument", "my.dag", "--script", PROGRAM)


def test_a_place_with_blanks_is_refused(desk: Desk) -> None:
    spaced = desk.place.rename(desk.place.with_name("my run"))
    moved = Desk(spaced, desk.server)
    message = moved.refused(78, "instrument", "my.dag", "--script", PROGRAM)
    assert "cannot name a path with blanks" in message


def without_privilege() -> None:
    """Take from root what lets it pass over permissions (prctl PR_CAPBSET_DROP of CAP_DAC_*)."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability)


def test_a_place_without_permission_is_refused(desk: Desk) -> None:
    desk.place.chmod(0o555)
    command = ("instrument", "my.dag", "--script", PROGRAM)
    message = desk.refused(78, *command, preexec_fn=without_privilege)
    assert f"nothing can be written into {desk.place}" in message
    desk.dag.chmod(0)
    message = desk.refused(78, *command, preexec_fn=without_privilege)
    assert "DAG file my.dag: Permission denied" in message
    desk.place.chmod(0o755)


def test_a_dag_without_its_line_stays_as_it_is(desk: Desk) -> None:
    assert "not instrumented" in desk.ok("uninstrument", "my.dag")
    assert desk.dag.read_bytes() == DAG
