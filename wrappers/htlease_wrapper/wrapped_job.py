"""A job that `htlease submit` put the wrapper in front of: all arguments are the payload's.

Its ad says the rest: `HTLeaseProgram` (what to run), `HTLeaseProgramPath` (where that is when no
files are transferred), `HTLeaseURL`, `HTLeaseKey`, `HTLeasePlan` and `HTLeasePlanPath`,
`HTLeaseTTL`, `HTLeaseWaitServer`, `HTLeaseTokenFile`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from htlease.condor.job_ad import Ad
from htlease.errors import BadConfig
from htlease.execution.job import Job, find_job
from htlease.execution.sandbox_state import read_state
from htlease.rules.plan import seconds_from
from htlease_wrapper.settings import RunOptions

#: What HTCondor called every job's executable once.
_OLD_NAME = "condor_exec.exe"


def started_as_job(argv: Sequence[str], environ: Mapping[str, str]) -> Job | None:
    """Return the job if this process is its executable, so that all arguments are the payload's.

    None for what the payload starts, for a person within the job, and for a site's wrapper in front
    of this one.
    """
    job = find_job(environ)
    program = job.ad.text("HTLeaseProgram") if job.ad else None
    if job.ad is None or not program or is_wrapper_file(program):
        return None
    names = (Path(job.ad.text("Cmd") or "").name, _OLD_NAME)
    if Path(argv[0]).name not in names or (len(argv) > 1 and Path(argv[1]).name in names):
        return None
    # A starter hook names the attempt too, but no sandbox of a wrapper.
    attempt = environ.get("HTLEASE_ATTEMPT", "") if environ.get("HTLEASE_SANDBOX") else ""
    state = read_state(job.sandbox)
    if attempt.startswith(f"{job.global_job_id}@") or (state is not None and state.is_in_use):
        return None
    return job


def is_wrapper_file(program: str) -> bool:
    """Tell whether a program is a wrapper by its name, as in a file that names it already."""
    name = Path(program).name
    return name.startswith("htlease-ep") and name.endswith(".pyz")


def options_of(job: Job, arguments: Sequence[str]) -> RunOptions:
    """Return what the ad says, as options of `run`; raises BadConfig."""
    assert job.ad is not None
    command = (program_of(job.ad, job.sandbox), *arguments)
    plan = _named(job.ad, "HTLeasePlan", job.sandbox)
    if plan is not None:
        from htlease.config.plan_file import read_plan_file

        if read_plan_file(Path(plan), is_sent=True).commands:
            command = ()
    return RunOptions(
        server=job.ad.text("HTLeaseURL"),
        key=job.ad.text("HTLeaseKey"),
        plan=plan,
        ttl_seconds=_seconds(job.ad, "HTLeaseTTL"),
        wait_server_seconds=_seconds(job.ad, "HTLeaseWaitServer"),
        command=command,
    )


def _seconds(ad: Ad, attribute: str) -> float | None:
    value = ad.attributes.get(attribute.lower())
    seconds = None if value is None else seconds_from(value)
    if value is not None and seconds is None:
        raise BadConfig(f"{attribute} in {ad.path} is {value!r}, which is not a number of seconds")
    return seconds


def program_of(ad: Ad, sandbox: Path) -> str:
    """Return the full path of the payload's program, as HTCondor would have called it."""
    program = _named(ad, "HTLeaseProgram", sandbox)
    assert program is not None
    path = Path(program)
    if path.parent == sandbox:
        _make_executable(path)
    return program


def _named(ad: Ad, attribute: str, sandbox: Path) -> str | None:
    """Return the file that an attribute names: in the sandbox, else where no files travel."""
    name = ad.text(attribute)
    if not name:
        return None
    in_sandbox = sandbox / name
    if in_sandbox.exists():
        return str(in_sandbox)
    elsewhere = ad.text(f"{attribute}Path")
    path = Path(elsewhere).absolute() if elsewhere else in_sandbox
    return str(path if path.exists() else in_sandbox)


def _make_executable(path: Path) -> None:
    """Do what HTCondor does to an executable that it sends; an input file it leaves as it was."""
    try:
        mode = path.stat().st_mode
        if not mode & 0o100:
            path.chmod(mode | 0o755)
    except OSError:
        pass  # then starting it says what is wrong with it
