"""The text of a staging workflow's DAG and of its watchers' submit files; pure.

stage-in, then compute, then stage-out; a FINAL node that runs the clean-up only when the stage-in
has failed. Facts this stands on, measured on 23.9.6 and 25.14.1: a NOOP node runs its PRE script,
and DEFER runs it again with no job and no slot; RETRY counts PRE scripts that were killed, and its
UNLESS-EXIT looks at their status too; a FINAL node whose PRE script exits with its PRE_SKIP value
lets the DAG succeed; a FINAL node has no RETRY, and its DAG succeeds or fails as it does.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from htlease.errors import BadConfig
from htlease_dagman.dagfile.include_file import Names
from htlease_dagman.staging.staging_file import STAGE_IN, STAGE_OUT, StagingFile
from htlease_dagman.staging.staging_settings import settings_path
from htlease_dagman.staging.watcher import FAILED, LATER

COMPUTE, CLEAN_UP = "compute", "clean-up"
MARK = "# Written by `htlease stage init`"
#: Failures of a watcher's job that are not the transfer's, and no violent death either, after which
#: HTCondor runs the same job again.
_JOB_RETRIES = 5
#: Deaths of a PRE script that watches; one that cannot be started at all should not try for ever.
_SCRIPT_RETRIES = 1_000
#: Short watchers follow each other by retries of their node: a year of them, one each half minute.
_CHAIN_RETRIES = 1_000_000
_DEFER_SECONDS = 60
#: DAGMan's default, and 4: a job that ran again after its end is no reason to abort. HTCondor logs
#: the end before its queue has it, so that a schedd which dies in between runs a job of local
#: universe again. Source: condor_utils/check_events.h; measured on 23.9.6 and 25.14.1.
_ALLOW_EVENTS = 114 + 4


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

    @property
    def dagman_config(self) -> Path:
        """DAGMan's own settings."""
        return self.file.path.with_suffix(".dagman.config")

    @property
    def clean_up_script(self) -> Path:
        """What stands in front of the clean-up's program."""
        return self.file.path.with_suffix(".clean-up.sh")

    def watcher_submit_file(self, node: str) -> Path:
        return self.file.path.with_suffix(f".{node}.sub")


def dag_text(layout: Layout) -> str:
    """Return the DAG file."""
    file = layout.file
    nodes = nodes_of(file)
    lines = [
        layout.mark,
        f"# Workflow {layout.workflow}",
        f"CONFIG {layout.dagman_config.name}",
    ]
    for node in nodes:
        lines += (
            [f"JOB {COMPUTE} {_relative(file.compute, file)}"]
            if node == COMPUTE
            else _stage(layout, node)
        )
    lines += [f"PARENT {first} CHILD {second}" for first, second in itertools.pairwise(nodes)]
    if has_clean_up(file):
        assert file.clean_up is not None
        lines.append(f"FINAL {CLEAN_UP} {_relative(file.clean_up, file)}")
    lines.append(f"INCLUDE {layout.names.include}")
    return "\n".join(lines) + "\n"


def has_clean_up(file: StagingFile) -> bool:
    """Tell whether there is anything to clean up, and something that does it."""
    return file.clean_up is not None and STAGE_IN in file.transfers


def dagman_config_text(layout: Layout) -> str:
    """Return DAGMan's own settings."""
    return f"{layout.mark}\nDAGMAN_ALLOW_EVENTS = {_ALLOW_EVENTS}\n"


def _stage(layout: Layout, node: str) -> list[str]:
    watching = layout.file.watching
    submit = layout.watcher_submit_file(node).name
    script = f"{layout.program} watch {layout.file.path.name} {node}"
    if watching.watcher == "defer":
        seconds = max(1, round(watching.poll_seconds))
        return [
            f"JOB {node} {submit} NOOP",
            f"SCRIPT DEFER {LATER} {seconds} PRE {node} {script} --once",
            f"RETRY {node} {_SCRIPT_RETRIES} UNLESS-EXIT {FAILED}",
        ]
    retries = _CHAIN_RETRIES if watching.watcher == "chain" else _JOB_RETRIES
    return [
        f"JOB {node} {submit}",
        f"SCRIPT DEFER {LATER} {_DEFER_SECONDS} PRE {node} {script} --begin $DAGID",
        f"RETRY {node} {retries} UNLESS-EXIT {FAILED}",
    ]


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
# Killed, it has given no answer, and runs again.
on_exit_remove = ExitBySignal =!= true
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
