"""What doctor makes of the facts it found: a verdict, and what to do; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from htlease_cli.tables import duration_text

OK = "ok"
WARNING = "warning"
PROBLEM = "problem"

#: A job's wrapper never compares clocks, so a difference only makes histories hard to read.
_CLOCK_DIFFERENCE_SECONDS = 5.0
#: `JOB_DEFAULT_LEASE_DURATION` where it is not set. Source: manual, configuration/submit.
_JOB_LEASE_DEFAULT_SECONDS = 2400.0

KNOBS = (
    "PROTECTED_JOB_ATTRS",
    "IMMUTABLE_JOB_ATTRS",
    "SHADOW_LAZY_QUEUE_UPDATE",
    "JOB_DEFAULT_LEASE_DURATION",
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    #: OK, WARNING or PROBLEM.
    verdict: str
    finding: str
    remedy: str = ""


def clock_check(difference_seconds: float) -> Check:
    """Judge how far this machine's clock is ahead of the server's."""
    off = abs(difference_seconds)
    if off <= _CLOCK_DIFFERENCE_SECONDS:
        return Check("clock", OK, f"within {_CLOCK_DIFFERENCE_SECONDS:g} s of the server's")
    side = "ahead of" if difference_seconds > 0 else "behind"
    return Check(
        "clock",
        WARNING,
        f"{duration_text(off)} {side} the server's",
        "set both by NTP; leases do not depend on it, but times in logs and histories differ",
    )


def is_loopback(host: str) -> bool:
    """Tell whether a host name means whichever machine it is used on."""
    return host in ("localhost", "::1") or host.startswith("127.")


def address_check(url: str, host: str) -> Check:
    """Judge whether execution points can reach the server by the URL that jobs are given."""
    if is_loopback(host):
        return Check(
            "server address",
            WARNING,
            f"{url} is this machine only; jobs on other machines cannot reach it",
            "serve with --listen ADDRESS:PORT that execution points reach, and set HTLEASE_URL",
        )
    return Check("server address", OK, f"{url} is not limited to this machine")


class Reach(Enum):
    """How far a token reaches."""

    ALL = "every workflow"
    #: Of a submitter, or of others whose workflows were named.
    SOME = "workflows of its own"
    #: Of a workflow or a job.
    ONE = "one workflow"


def token_check(source: str | None, refusal: str | None, reach: Reach) -> Check:
    """Judge the credential."""
    if refusal is not None:
        found = f"the token in {source} is refused" if source else "no token was found"
        return Check(
            "token",
            PROBLEM,
            f"{found}: {refusal}",
            "name the file of yours with BEARER_TOKEN_FILE; who runs the server makes one with"
            " `htlease token mint --role submitter --name YOU` and its admin token",
        )
    if reach is Reach.ONE:
        return Check(
            "token",
            WARNING,
            f"{source} holds a token for {reach.value} only",
            "to make workflows, use a submitter's (`htlease token mint --role submitter`)",
        )
    return Check(
        "token",
        OK,
        f"the token in {source} reaches {reach.value}" if source else "the server asks for none",
    )


def wrapper_check(path: str, theirs: str | None, ours: str | None) -> Check:
    """Judge the wrapper file that `htlease submit` would send along."""
    if theirs is None:
        return Check("wrapper", PROBLEM, f"{path} does not run", "build it anew with `make ep`")
    if ours is not None and theirs != ours:
        return Check(
            "wrapper",
            WARNING,
            f"{path} is version {theirs}, this command is {ours}",
            "build it anew with `make ep`, so that both speak of the same options",
        )
    return Check("wrapper", OK, f"{path}, version {theirs}")


def knob_checks(knobs: Mapping[str, str], ttl_seconds: float) -> list[Check]:
    """Judge the schedd's configuration; `knobs` has the values that are set."""
    return [
        _protected_check(knobs),
        _job_lease_check(knobs.get("JOB_DEFAULT_LEASE_DURATION"), ttl_seconds),
        _lazy_check(knobs.get("SHADOW_LAZY_QUEUE_UPDATE")),
    ]


def _protected_check(knobs: Mapping[str, str]) -> Check:
    for knob in ("PROTECTED_JOB_ATTRS", "IMMUTABLE_JOB_ATTRS"):
        names = knobs.get(knob, "").replace(",", " ").split()
        if "numjobstarts" in (name.lower() for name in names):
            return Check(
                "protected attributes",
                PROBLEM,
                f"{knob} has NumJobStarts: the shadow, which writes it as the job's owner, is "
                "refused, and jobs run again and again",
                f"take NumJobStarts out of {knob} and run condor_reconfig",
            )
    if "numshadowstarts" in knobs.get("PROTECTED_JOB_ATTRS", "").lower():
        return Check("protected attributes", OK, "owners cannot forge NumShadowStarts")
    return Check(
        "protected attributes",
        OK,
        "none of the counters; owners can forge the order of their own attempts",
        "optional: PROTECTED_JOB_ATTRS = $(PROTECTED_JOB_ATTRS) NumShadowStarts",
    )


def _job_lease_check(value: str | None, ttl_seconds: float) -> Check:
    try:
        job_lease_seconds = _JOB_LEASE_DEFAULT_SECONDS if value is None else float(value)
    except ValueError:
        return Check("job lease", OK, f"JOB_DEFAULT_LEASE_DURATION is an expression: {value}")
    finding = f"{job_lease_seconds:g} s, and a state lease lasts {ttl_seconds:g} s"
    if ttl_seconds > job_lease_seconds > 0:
        return Check(
            "job lease",
            WARNING,
            finding,
            "a job that HTCondor restarts elsewhere has to sit out the rest of the state lease; "
            "give a ttl below JOB_DEFAULT_LEASE_DURATION",
        )
    return Check("job lease", OK, finding)


def _lazy_check(value: str | None) -> Check:
    if value is not None and value.strip().lower() in ("false", "0", "no"):
        return Check(
            "NumJobStarts", OK, "written at every start (SHADOW_LAZY_QUEUE_UPDATE = False)"
        )
    return Check(
        "NumJobStarts",
        OK,
        "written lazily, so starts may share a value; fences tell them apart anyway",
    )
