"""The text of a staging workflow's DAG and of its watchers' submit files; pure.

stage-in, then compute, then stage-out; a FINAL node that runs the clean-up only when the stage-in
has failed. Facts this stands on, measured on 23.9.6 and 25.14.1: a NOOP node runs its PRE script,
and DEFER runs it again with no job and no slot; a FINAL node whose PRE script exits with its
PRE_SKIP value lets the DAG succeed; a DAG with a FINAL node succeeds or fails as that node does.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from htlease.errors import BadConfig
from htlease_dagman.transfers.staging_file import STAGE_IN, STAGE_OUT, StagingFile
from htlease_dagman.transfers.watcher import FAILED, LATER
from htlease_dagman.watch import NOT_NEEDED

MARK = "# Written by `htlease stage init`"
#: Failures of a watcher's job that are not the transfer's: the job is simply started again.
_JOB_RETRIES = 5
#: Short watchers follow each other by retries of their node: a year of them, one each half minute.
_CHAIN_RETRIES = 1_000_000
_CLEAN_UP_DEFER_SECONDS = 60


@dataclass(frozen=True)
class Layout:
    """The names of a staging workflow's files, all in one directory."""

    file: StagingFile
    workflow: str
    #: The program `htlease-dag`.
    program: Path

    def __post_init__(self) -> None:
        for what, text in (("staging file", self.file.path.name), ("program", str(self.program))):
            if any(char in text for char in " \t\"'$"):
                raise BadConfig(
                    f"the {what} {text} has a blank, quote or $ in its name, which DAGMan scripts"
                    " cannot be given; rename it"
                )

    @property
    def dag(self) -> Path:
        return self.file.path.with_suffix(".dag")

    def watcher_submit_file(self, node: str) -> Path:
        return self.file.path.with_suffix(f".{node}.sub")


def dag_text(layout: Layout) -> str:
    """Return the DAG file."""
    file = layout.file
    nodes = [node for node in (STAGE_IN, "compute", STAGE_OUT) if _is_there(file, node)]
    lines = [
        f"{MARK} from {file.path.name}: change that file and run it again.",
        f"# Workflow {layout.workflow}",
    ]
    for node in nodes:
        lines += (
            [f"JOB compute {_relative(file.compute, file)}"]
            if node == "compute"
            else _stage(layout, node)
        )
    lines += [f"PARENT {first} CHILD {second}" for first, second in itertools.pairwise(nodes)]
    if file.clean_up is not None and STAGE_IN in nodes:
        script = f"{layout.program} watch {file.path.name} --clean-up $DAG_STATUS"
        lines += [
            f"FINAL clean-up {_relative(file.clean_up, file)}",
            f"SCRIPT DEFER {LATER} {_CLEAN_UP_DEFER_SECONDS} PRE clean-up {script}",
            f"PRE_SKIP clean-up {NOT_NEEDED}",
            "# The clean-up itself went well; the workflow did not.",
            "SCRIPT POST clean-up /bin/false",
        ]
    return "\n".join(lines) + "\n"


def _stage(layout: Layout, node: str) -> list[str]:
    watching = layout.file.watching
    submit = layout.watcher_submit_file(node).name
    if watching.watcher == "defer":
        script = f"{layout.program} watch {layout.file.path.name} {node} --once"
        seconds = max(1, round(watching.poll_seconds))
        return [f"JOB {node} {submit} NOOP", f"SCRIPT DEFER {LATER} {seconds} PRE {node} {script}"]
    retries = _CHAIN_RETRIES if watching.watcher == "chain" else _JOB_RETRIES
    return [f"JOB {node} {submit}", f"RETRY {node} {retries} UNLESS-EXIT {FAILED}"]


def watcher_submit_text(layout: Layout, node: str) -> str:
    """Return the submit file of a watcher; a deferred one's is never submitted."""
    stem = layout.file.path.stem
    short = " --short" if layout.file.watching.watcher == "chain" else ""
    return f"""{MARK} from {layout.file.path.name}.
# It waits on the access point and takes no slot of any execution point.
universe = local
executable = {layout.program}
arguments = watch {layout.file.path.name} {node}{short}
output = {stem}.{node}.$(Cluster).out
error = {stem}.{node}.$(Cluster).err
log = {stem}.log
# The watcher keeps its own lease; hooks and wrappers of the site leave it alone.
My.HTLease = false
My.HTLeaseKey = "{layout.workflow}/{node}"
My.HTLeaseStaging = true
queue
"""


def _is_there(file: StagingFile, node: str) -> bool:
    return node == "compute" or node in file.transfers


def _relative(path: Path, file: StagingFile) -> str:
    text = str(path.relative_to(file.path.parent))
    if any(char.isspace() for char in text):
        raise BadConfig(f"{path}: has a blank in its name, which a DAG file cannot hold; rename it")
    return text
