"""The job that the wrapper runs in: its sandbox, its ads, its key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from htlease.condor.job_ad import (
    STAMP_ATTRIBUTE,
    Ad,
    is_stamped,
    key_of_submission,
    node_of,
    read_ad,
)
from htlease.errors import BadConfig, InvalidField
from htlease.execution.credentials import Token
from htlease.execution.sandbox_state import StartId, boot_id
from htlease.rules.attempt import SubjobKey

_STAMP = re.compile(r"-(\d+)-\d+/(\d+)$")
#: What a payload is given for its own start alone.
_OF_A_WRAPPER = (
    "HTLEASE_SANDBOX",
    "HTLEASE_ATTEMPT",
    "HTLEASE_ATTEMPT_NUMBER",
    "HTLEASE_FENCE",
    "HTLEASE_PHASE",
    "HTLEASE_OUTPUT_PREFIX",
    "HTLEASE_DETAILS",
)


@dataclass(frozen=True)
class Job:
    """One start, as far as its files tell."""

    #: The scratch directory; the current one outside HTCondor.
    sandbox: Path
    ad: Ad | None
    machine_ad: Ad | None

    @property
    def global_job_id(self) -> str | None:
        """Return what names the submission, or None."""
        return self.ad.text("GlobalJobId") if self.ad else None

    @property
    def start_id(self) -> StartId:
        """Return what must be equal for two processes to belong to one start."""
        return StartId(
            self.global_job_id,
            self.ad.count("NumJobStarts") if self.ad else None,
            self.ad.count("NumShadowStarts") if self.ad else None,
            str(self.sandbox),
            boot_id(),
        )


def sandbox_of(environ: Mapping[str, str]) -> Path:
    """Return the scratch directory, or the current one."""
    return Path(environ.get("_CONDOR_SCRATCH_DIR") or Path.cwd()).absolute()


def find_job(environ: Mapping[str, str]) -> Job:
    """Return the job; its ads are None where they cannot be read."""
    sandbox = sandbox_of(environ)
    return Job(
        sandbox,
        _first_ad(environ.get("_CONDOR_JOB_AD"), sandbox, ".job.ad"),
        _first_ad(environ.get("_CONDOR_MACHINE_AD"), sandbox, ".machine.ad"),
    )


def own_variables(environ: Mapping[str, str], job: Job) -> dict[str, str]:
    """Return the environment without what a wrapper around another job has left in it.

    A payload that submits jobs with `getenv` hands its whole environment on to them. A key is its
    parent's only if nobody has set another one since; where the server is, does not change.
    """
    own = dict(environ)
    there = environ.get("HTLEASE_SANDBOX")
    if there is None or not _is_of_another(Path(there), environ, job):
        return own
    if own.pop("HTLEASE_SANDBOX_KEY", None) == environ.get("HTLEASE_KEY"):
        own.pop("HTLEASE_KEY", None)
    for name in _OF_A_WRAPPER:
        own.pop(name, None)
    credentials = own.get("_CONDOR_CREDS")  # HTCondor sets it only for jobs that have some
    if credentials and _is_within(Path(credentials), Path(there)):
        del own["_CONDOR_CREDS"]
    return own


def _is_of_another(there: Path, environ: Mapping[str, str], job: Job) -> bool:
    """Tell whether a wrapper's sandbox is another job's; a container may call ours otherwise."""
    theirs = environ.get("HTLEASE_ATTEMPT", "").rpartition("@")[0]
    if theirs and job.global_job_id:
        return theirs != job.global_job_id
    return "_CONDOR_SCRATCH_DIR" in environ and not _is_within(there, job.sandbox)


def _is_within(path: Path, folder: Path) -> bool:
    """Tell whether a path is a folder or something in it, by their names."""
    return path == folder or folder in path.parents


def _first_ad(named: str | None, sandbox: Path, name: str) -> Ad | None:
    paths = [Path(named)] if named else []
    for path in (*paths, sandbox / name, Path(name).absolute()):
        ad = read_ad(path)
        if ad is not None:
            return ad
    return None


def choose_key(given: str | None, ad: Ad | None, token: Token | None) -> SubjobKey:
    """Return the subjob's key; raises BadConfig when nothing names one or it cannot be used.

    The nodes of a parallel universe job run side by side, so each but the first has its own.
    """
    key = _key_of_job(given, ad, token)
    node = node_of(ad)
    return SubjobKey(key.workflow, f"{key.subjob}.node{node}") if node else key


def _key_of_job(given: str | None, ad: Ad | None, token: Token | None) -> SubjobKey:
    """Return the key; raises BadConfig.

    First that is there: given, the ad's HTLeaseKey, the scope of the job token, GlobalJobId. A key
    that only the access point stamped, or a hook handed on, gives way to the token: its owner
    chose a workflow by it.
    """
    scope = token.scope() if token else None
    if given and not _gives_way(given, scope, ad):
        return _parsed(given, "--key or HTLEASE_KEY")
    in_ad = ad.text("HTLeaseKey") if ad else None
    if ad and in_ad and not _gives_way(in_ad, scope, ad):
        return _parsed(in_ad, f"HTLeaseKey in {ad.path}")
    if token and scope:
        subjob = scope[1] or (_job_of(ad) if ad else None)
        if subjob is not None:
            return _parsed(f"{scope[0]}/{subjob}", f"the token in {token.found_at}")
    global_job_id = ad.text("GlobalJobId") if ad else None
    if ad and global_job_id:
        key = key_of_submission(global_job_id)
        if key is None:
            raise BadConfig(
                f"GlobalJobId {global_job_id!r} in {ad.path} is not SCHEDD#CLUSTER.PROC#TIME, so "
                "it gives no key; name one with --key WORKFLOW/SUBJOB or +HTLeaseKey"
            )
        return key
    where = f"{ad.path} has no GlobalJobId" if ad else "there is no job ad"
    raise BadConfig(
        f"{where} and nothing names a key; give --key WORKFLOW/SUBJOB, set HTLEASE_KEY, or put "
        '+HTLeaseKey = "WORKFLOW/SUBJOB" into the submit file'
    )


def _job_of(ad: Ad) -> str | None:
    """Return `CLUSTER.PROC` of a job, or of the source of one that the Job Router made."""
    stamped = _STAMP.search(ad.text(STAMP_ATTRIBUTE) or "")
    if stamped:
        return f"{stamped[1]}.{stamped[2]}"
    cluster, proc = ad.count("ClusterId"), ad.count("ProcId")
    return None if cluster is None or proc is None else f"{cluster}.{proc}"


def _gives_way(key: str, scope: tuple[str, str | None] | None, ad: Ad | None) -> bool:
    """Tell whether a token of the job's own, for another workflow, outweighs a stamped key."""
    if ad is None or scope is None:
        return False
    return key.partition("/")[0] != scope[0] and is_stamped(key, ad)


def _parsed(text: str, source: str) -> SubjobKey:
    try:
        return SubjobKey.parse(text)
    except InvalidField as error:
        raise BadConfig(f"{source}: {error}") from None
