"""The wrapper as `USER_JOB_WRAPPER`: an execution point puts it in front of every job's executable.

argv is the full path of the executable and its arguments. The job may know nothing of us, so what
it does not ask for must not make it fail.
"""

from __future__ import annotations

import zipimport
from collections.abc import Mapping, Sequence
from pathlib import Path

from htlease.condor.job_ad import Ad
from htlease.errors import BadConfig
from htlease.execution.job import find_job
from htlease.execution.sandbox_state import read_state
from htlease.rules.plan import seconds_from
from htlease_wrapper.console import Console
from htlease_wrapper.container import container_of
from htlease_wrapper.exec_payload import exec_payload
from htlease_wrapper.exit_status import NoLease
from htlease_wrapper.run import run
from htlease_wrapper.settings import RunOptions

#: A slot is not kept waiting for a server that is away as long as by a user who asked for it.
WAIT_SERVER_SECONDS = 10.0
#: What a site may want for a job that can have no lease (`HTLEASE_ON_NO_SERVER`).
POLICIES = ("run", "idle", "hold")


def run_job(command: Sequence[str], environ: Mapping[str, str], console: Console) -> int:
    """Run a job under its lease if it is to have one, and return the exit status."""
    job = find_job(environ)
    server = environ.get("HTLEASE_URL") or (job.ad.text("HTLeaseURL") if job.ad else None)
    if not server or is_left_alone(command[0], job.ad) or _runs_beside(job.sandbox):
        return exec_payload(command)
    plan = job.ad.text("HTLeasePlan") if job.ad else None
    try:
        options = _options(command, environ, job.ad, server, plan)
        return run(options, environ, console)
    except (NoLease, BadConfig) as error:
        if plan is not None or _policy(environ, console) != "run":
            # The executable alone is not the work of a job that names a plan.
            raise
        why = error.why if isinstance(error, NoLease) else str(error)
    console.say(f"{why}; the payload runs untracked, nothing of it is recorded")
    return exec_payload(command)


def is_job(word: str, environ: Mapping[str, str]) -> bool:
    """Tell whether the first word of a command line is a job's executable.

    HTCondor makes it a full path unless the job has `PreserveRelativeExecutable`. Source:
    `OsProc::canonicalizeJobPath`.
    """
    if Path(word).is_absolute():
        return True
    ad = find_job(environ).ad
    return ad is not None and ad.text("Cmd") == word


def is_left_alone(executable: str, ad: Ad | None) -> bool:
    """Tell whether a job is none of ours: it says so, a person works in it, or it wraps itself."""
    if ad is not None:
        if ad.attributes.get("htlease") is False or ad.attributes.get("interactivejob") is True:
            return True
        # The starter puts the wrapper in front of `condor_ssh_to_job`'s server too.
        if Path(executable).name == "sshd" and Path(ad.text("Cmd") or "").name != "sshd":
            return True
    return _is_wrapper(executable)


def _is_wrapper(executable: str) -> bool:
    """Tell whether a file is an htlease-ep.pyz, whatever its name."""
    try:
        zipimport.zipimporter(executable).get_data("htlease_wrapper/site_wrapper.py")
    except (OSError, zipimport.ZipImportError):
        return False
    return True


def _runs_beside(sandbox: Path) -> bool:
    """Tell whether the job itself runs already: what the starter starts beside it is no job."""
    state = read_state(sandbox)
    return state is not None and state.is_in_use


def _options(
    command: Sequence[str],
    environ: Mapping[str, str],
    ad: Ad | None,
    server: str,
    plan: str | None,
) -> RunOptions:
    """Return what the site and the job say, as options of `run`; raises BadConfig."""
    container = container_of(command, ad.text("Cmd") if ad else None, environ)
    if plan is not None:
        from htlease.config.plan_file import read_plan_file

        if read_plan_file(Path(plan), is_sent=True).commands:
            command = ()
    ttl = environ.get("HTLEASE_TTL") or (ad.attributes.get("htleasettl") if ad else None)
    wait_server = environ.get("HTLEASE_WAIT_SERVER") or WAIT_SERVER_SECONDS
    return RunOptions(
        server=server,
        plan=plan,
        ttl_seconds=None if ttl is None else _seconds("HTLEASE_TTL", ttl),
        wait_server_seconds=_seconds("HTLEASE_WAIT_SERVER", wait_server),
        command=tuple(command),
        may_run_untracked=False,  # the site's policy says what happens then
        container=container,
    )


def _seconds(name: str, value: object) -> float:
    seconds = seconds_from(value)
    if seconds is None:
        raise BadConfig(f"{name} is {value!r}, which is not a number of seconds")
    return seconds


def _policy(environ: Mapping[str, str], console: Console) -> str:
    policy = environ.get("HTLEASE_ON_NO_SERVER") or POLICIES[0]
    if policy not in POLICIES:
        console.say(f"HTLEASE_ON_NO_SERVER is {policy!r} and not {', '.join(POLICIES)}; runs on")
        return POLICIES[0]
    return policy
