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
from htlease_dagman.include import Names
from htlease_dagman.transfers.settings import settings_path
from htlease_dagman.transfers.staging_file import STAGE_IN, STAGE_OUT, StagingFile
from htlease_dagman.transfers.watcher import FAILED, LATER
from htlease_dagman.watch import NOT_NEEDED

COMPUTE, CLEAN_UP = "compute", "clean-up"
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

    @property
    def names(self) -> Names:
        """The files beside the DAG that its scripts use."""
        return Names(self.dag.absolute())

    @property
    def mark(self) -> str:
        """The first line of a file that `init` may write over."""
        return f"{MARK} from {self.file.path.name}: change that file and run it again."

    def watcher_submit_file(self, node: str) -> Path:
        return self.file.path.with_suffix(f".{node}.sub")


def dag_text(layout: Layout) -> str:
    """Return the DAG file."""
    file = layout.file
    nodes = nodes_of(file)
    lines = [layout.mark, f"# Workflow {layout.workflow}"]
    for node in nodes:
        lines += (
            [f"JOB {COMPUTE} {_relative(file.compute, file)}"]
            if node == COMPUTE
            else _stage(layout, node)
        )
    lines += [f"PARENT {first} CHILD {second}" for first, second in itertools.pairwise(nodes)]
    if file.clean_up is not None and STAGE_IN in nodes:
        script = f"{layout.program} watch {file.path.name} --clean-up $DAG_STATUS"
        lines += [
            f"FINAL {CLEAN_UP} {_relative(file.clean_up, file)}",
            f"SCRIPT DEFER {LATER} {_CLEAN_UP_DEFER_SECONDS} PRE {CLEAN_UP} {script}",
            f"PRE_SKIP {CLEAN_UP} {NOT_NEEDED}",
            "# The clean-up itself went well; the workflow did not.",
            f"SCRIPT POST {CLEAN_UP} /bin/false",
        ]
    lines.append(f"INCLUDE {layout.names.include}")
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
    return f"""{layout.mark}
{_place(layout)}
executable = {layout.program}
arguments = watch {layout.file.path.name} {node}{short}
output = {stem}.{node}.$(Cluster).out
error = {stem}.{node}.$(Cluster).err
log = {stem}.log
# The watcher keeps its own lease; hooks and wrappers of the site leave it alone.
My.HTLease = false
My.HTLeaseKey = "{layout.workflow}/{node}"
My.HTLeaseRole = "staging"
queue
"""


def _place(layout: Layout) -> str:
    watching, file = layout.file.watching, layout.file
    lines = [
        "# It waits on the access point and takes no slot of any execution point.",
        "universe = local",
    ]
    if watching.requirements:
        beside = ", ".join(path.name for path in (file.path, settings_path(file.path)))
        lines = [
            "# It needs next to nothing, for as long as the transfer lasts.",
            "universe = vanilla",
            f"requirements = {watching.requirements}",
            "request_cpus = 1",
            "request_memory = 64",
            "request_disk = 1024",
            "transfer_executable = false",
            "should_transfer_files = YES",
            f"transfer_input_files = {beside}, {file.path.with_suffix('.token').name}",
        ]
    if file.service["backend"] == "condor":
        # The watcher calls HTCondor's tools as DAGMan's user does.
        lines.append("getenv = CONDOR_CONFIG, _CONDOR_*, PATH")
    if watching.accounting_group:
        lines.append(f"accounting_group = {watching.accounting_group}")
    return "\n".join(lines)


def nodes_of(file: StagingFile) -> list[str]:
    """Return the nodes that follow each other."""
    order = (STAGE_IN, COMPUTE, STAGE_OUT)
    return [node for node in order if node == COMPUTE or node in file.transfers]


def _relative(path: Path, file: StagingFile) -> str:
    text = str(path.relative_to(file.path.parent))
    if any(char.isspace() for char in text):
        raise BadConfig(f"{path}: has a blank in its name, which a DAG file cannot hold; rename it")
    return text
