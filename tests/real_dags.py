"""DAG files that others wrote, and stand-ins for the submit files and scripts that they name."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from htlease_dagman.dagfile.lexer import BadDag
from htlease_dagman.dagfile.parser import read_dag

FOLDER = Path(__file__).parent / "data" / "dags"
#: Folder -> the file that is submitted.
MAIN = {
    "abort-and-final": "job_dagman_abort-final-A.dag",
    "depth-first": "job_dagman_depth_first.dag",
    "diamond": "diamond.dag",
    "final": "job_dagman_final-A.dag",
    "lsst-noop": "noop_running_1.dag",
    "lsst-quoted": "tiny_problems.dag",
    "node-directories": "job_dagman_node_dir.dag",
    "noop": "job_dagman_noop_node-upper.dag",
    "pegasus-held": "Drug-Combination-Therapy-0.dag",
    "pegasus-hierarchical": "hierarchical-workflow-0.dag",
    "pegasus-process": "process-0.dag",
    "pre-skip": "job_dagman_pre_skip-A.dag",
    "script-arguments": "job_dagman_script_args.dag",
    "script-defer": "job_dagman_script_defer.dag",
    "scripts-many": "job_dagman_prepost.dag",
    "splice-directories": "job_dagman_splice-O.dag",
    "splice-pins": "job_dagman_splice_connect-A.dag",
    "sub-dags": "job_dagman_subdag-A-upper.dag",
    "vars": "job_dagman_vars.dag",
    "vars-all-nodes": "job_dagman_vars-B.dag",
}
_JOB = "executable = /bin/true\nuniverse = scheduler\nlog = nodes.log\nqueue\n"
_DIRECTORY = re.compile(r"\sDIR\s+\"?([^\s\"]+)", re.IGNORECASE)


def lay_out(name: str, place: Path) -> Path:
    """Copy a DAG with its parts, make what it names, and return the file to submit.

    Jobs do nothing, scripts succeed.
    """
    shutil.copytree(FOLDER / name, place)
    for file in place.rglob("*.dag"):
        for directory in _DIRECTORY.findall(file.read_text()):
            (file.parent / directory).mkdir(parents=True, exist_ok=True)
    for file in place.rglob("*.dag"):
        _make_what_is_named(file)
    return place / MAIN[name]


def _make_what_is_named(file: Path) -> None:
    try:
        nodes = read_dag(file, file.parent).nodes.values()
    except BadDag:
        return  # a part that is no DAG without the rest
    for node in nodes:
        if node.kind != "subdag" and not node.is_noop:
            submit = node.directory / node.submit
            submit.parent.mkdir(parents=True, exist_ok=True)
            submit.write_text(_JOB)
        for script in node.scripts.values():
            program = node.directory / script.command.split()[0]
            if program.is_relative_to(file.parent):
                program.parent.mkdir(parents=True, exist_ok=True)
                program.write_text("#!/bin/sh\nexit 0\n")
                program.chmod(0o755)
