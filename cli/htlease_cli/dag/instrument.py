"""Instrumenting a DAG: what its files shall hold, worked out before any of them is touched."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htlease.condor import bindings_process, schedd
from htlease.errors import BadConfig, InvalidField
from htlease.rules.attempt import SubjobKey
from htlease_cli.dag.kept_files import kept_files, kept_name
from htlease_cli.pyz import kept_place
from htlease_cli.staging.dag_text import MARK
from htlease_cli.submit.node_descriptions import condor_version
from htlease_cli.submit.node_submit_files import read_jobs
from htlease_cli.submit.node_wrapping import Wrapping, wrapping
from htlease_cli.submit.submit_lines import Additions
from htlease_dagman.dagfile.include_file import (
    Instruments,
    Names,
    NodeJobs,
    include_text,
    settings_document,
    structure_document,
)
from htlease_dagman.dagfile.include_line import with_line, without_line
from htlease_dagman.dagfile.lexer import BadDag
from htlease_dagman.dagfile.parser import Dag, Node, read_dag
from htlease_dagman.scripts.dag_settings import SERVICE_KINDS, is_join_node
from htlease_dagman.scripts.invocation import DEFER, SKIP

PROGRAM = "htlease-dag"


@dataclass(frozen=True)
class Wanted:
    """What the user asks for."""

    dag: Path
    server: str
    #: Where condor_submit_dag will be called; relative paths in the DAG start there.
    submit_directory: Path
    #: Instead of that, what `condor_submit_dag -usedagdir` does.
    use_dag_directory: bool
    #: For a DAG that has no workflow yet.
    workflow: str
    defer_seconds: int
    may_be_missing: bool
    send_tokens: bool
    program: Path | None
    #: The wrapper that goes in front of what the nodes run; None: they stay as they are.
    pyz: Path | None
    #: What the plan says of a limit on run time, one of ON_WALL_TIME.
    on_wall_time: str | None = None


@dataclass(frozen=True)
class Instrumented:
    """What the files beside a DAG and the server shall hold."""

    names: Names
    workflow: str
    #: The DAG comes last: with its line, DAGMan reads the others.
    files: dict[Path, bytes]
    structure: dict[str, Any]
    #: A sentence for each node that the wrapper cannot run.
    left_alone: list[str]

    def changes(self) -> dict[Path, tuple[bytes, bytes]]:
        """Return what is there and what shall be there, of the files that differ."""
        there = {path: _read_or_nothing(path) for path in self.files}
        return {p: (there[p], shall) for p, shall in self.files.items() if there[p] != shall}


def instrumented(wanted: Wanted) -> Instrumented:
    """Work out everything; raises BadConfig, where it can with file and line."""
    names = Names(wanted.dag.absolute())
    text = read_dag_file(wanted.dag)
    if text.startswith(MARK.encode()):
        raise BadConfig(
            f"{wanted.dag}, line 1: was written by `htlease stage init`, which has put in what its "
            "nodes need; watchers would not get on with more scripts"
        )
    for path in (names.dag, program := wanted.program or _find_program()):
        if re.search(r"\s", str(path)):
            raise BadConfig(f"{path}: SCRIPT commands of a DAG cannot name a path with blanks")
    if not os.access(names.dag.parent, os.W_OK):
        raise BadConfig(
            f"{wanted.dag}: nothing can be written into {names.dag.parent}; copy the DAG to a "
            "directory of your own"
        )
    submit_directory = wanted.submit_directory.absolute()
    dag = read_dag(wanted.dag, submit_directory, wanted.use_dag_directory, without_ours=True)
    workflow = workflow_of(names) or wanted.workflow
    wrapped = _wrapping(wanted, names, workflow)
    read = read_jobs(dag, wanted.may_be_missing, wanted.send_tokens, names.job_token, wrapped)
    jobs = read.jobs
    _check_keys(dag, jobs, workflow)
    _check_scripts(dag)
    shared = wrapped.shared if wrapped else {}
    instruments = Instruments(
        names, workflow, wanted.server, program, wanted.defer_seconds, jobs, shared
    )
    bare = without_line(text)
    document = settings_document(dag, instruments)
    files = {
        names.settings: (json.dumps(document, indent=1) + "\n").encode(),
        names.include: include_text(dag, instruments).encode("utf-8", "surrogateescape"),
    }
    if dag.has_splices:
        files[names.splices] = b"# After this file DAGMan knows the nodes of all splices.\n"
    files[names.dag] = with_line(bare, names.include)
    structure = structure_document(dag, hashlib.sha256(bare).hexdigest(), _sub_workflows(dag))
    structure |= {
        "dag": kept_name(names.dag, submit_directory),
        **kept_files(dag, submit_directory, structure),
    }
    return Instrumented(names, workflow, files, structure, read.left_alone)


def _wrapping(wanted: Wanted, names: Names, workflow: str) -> Wrapping | None:
    if wanted.pyz is None:
        return None
    additions = Additions(
        pyz=kept_place(wanted.pyz.read_bytes(), names.notes),
        server_url=wanted.server,
        workflow=workflow,
        token_path=str(names.job_token),
        submit_directory=None,
        on_wall_time=wanted.on_wall_time,
        should_transfer_default=bindings_process.should_transfer_default(),
    )
    return wrapping(additions, condor_version() or schedd.bindings_version())


def _sub_workflows(dag: Dag) -> dict[str, str]:
    """Return the workflows of the sub-DAGs that are instrumented already, by node."""
    found = {}
    for node in dag.nodes.values():
        if node.kind == "subdag":
            workflow = workflow_of(Names((node.directory / node.submit).absolute()))
            if workflow is not None:
                found[node.name] = workflow
    return found


def read_dag_file(path: Path) -> bytes:
    """Return the content of a DAG file; raises BadConfig."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadConfig(f"DAG file {path}: {error.strerror}") from None


def workflow_of(names: Names) -> str | None:
    """Return the workflow that a DAG has been given; None for a new one or a copy of another."""
    try:
        document = json.loads(names.settings.read_bytes())
        return str(document["workflow"]) if document["dag"] == str(names.dag) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadConfig(f"{names.settings}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise BadConfig(
            f"{names.settings} does not name the DAG's workflow any more; put it back, or delete "
            "it, and the DAG is a new workflow"
        ) from None


def _find_program() -> Path:
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if beside.exists() else shutil.which(PROGRAM)
    if found is None:
        raise BadConfig(f"{PROGRAM} is not installed beside this command; name it with --script")
    return Path(found).absolute()


def _check_keys(dag: Dag, jobs: dict[str, NodeJobs], workflow: str) -> None:
    """Refuse names that are no subjobs' names, or those of two subjobs. Raises BadDag."""
    taken: dict[str, Node] = {}
    for node in dag.nodes.values():
        if node.kind in SERVICE_KINDS:
            continue
        count = jobs[node.name].count if node.name in jobs else 1
        if is_join_node(node.name):
            raise BadDag(node.place, f"names like {node.name} are for DAGMan's own nodes")
        for name in [node.name, *(f"{node.name}.{n}" for n in range(count) if count > 1)]:
            try:
                SubjobKey(workflow, name)
            except InvalidField as error:
                raise BadDag(node.place, f"node {name!r} cannot be a subjob: {error}") from None
            other = taken.setdefault(name, node)
            if other is not node:
                raise BadDag(node.place, f"nodes {other.name} and {node.name} would both be {name}")


def _check_scripts(dag: Dag) -> None:
    for node in dag.nodes.values():
        for script in node.scripts.values():
            if any(Path(word).name == PROGRAM for word in script.command.split()[:1]):
                raise BadDag(
                    script.place,
                    f"node {node.name} has scripts of htlease already; uninstrument "
                    f"{script.place.file.name.removesuffix('.htlease.inc')}, which is a part of "
                    "this DAG, and instrument the whole",
                )
        if node.abort_on is not None and node.abort_on[0] in (0, DEFER, SKIP):
            # DAGMan looks at PRE's status too: with 0 it would abort before the job ran.
            status, place = node.abort_on
            raise BadDag(
                place,
                f"ABORT-DAG-ON {node.name} {status}: scripts of htlease exit with {status} too; "
                "abort on another status",
            )


def write(path: Path, content: bytes, mode: int | None = None) -> None:
    """Write a file in one step, through links; a file that is there keeps mode and owner.

    Raises BadConfig.
    """
    path = path.resolve()
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        before = path.stat() if path.exists() else None
        kept = 0o644 if before is None else before.st_mode & 0o7777
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fchmod(fd, kept if mode is None else mode)
            if before is not None and os.geteuid() == 0:
                os.fchown(fd, before.st_uid, before.st_gid)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise BadConfig(f"{path}: {error.strerror}") from None


def _read_or_nothing(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
