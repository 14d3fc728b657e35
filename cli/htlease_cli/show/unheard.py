"""What the queue tells of a job of which the lease server has not heard, since none of it started.

A job that is held before its first start, or removed before one, has asked nobody for a lease.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from htlease.condor.bindings_process import read_history, read_jobs
from htlease.condor.hold_codes import held_by, removed_by
from htlease.condor.queued_ad import (
    COMPLETED,
    HELD,
    IDLE,
    REMOVED,
    RUNNING,
    SUSPENDED,
    TRANSFERRING_OUTPUT,
    integer,
)
from htlease.condor.schedd import Plain, ScheddUnavailable
from htlease.errors import BadConfig, Refused
from htlease.rules.attempt import SubjobKey
from htlease_cli.show.timeline import hold_text, who_acted

_ATTRIBUTES = (
    *("ClusterId", "ProcId", "JobStatus", "NumJobStarts", "ExitCode"),
    *("HoldReason", "HoldReasonCode", "HoldReasonSubCode", "RemoveReason"),
)
#: The history of a busy access point is long, and a mistyped key is in none of it.
_HISTORY_SECONDS = 86400.0
_SHOWN_MAX = 3
_STATES: Mapping[object, str] = {
    IDLE: "is idle",
    RUNNING: "runs",
    TRANSFERRING_OUTPUT: "brings its output back",
    SUSPENDED: "is suspended",
}


@contextmanager
def with_what_is_seen(key: SubjobKey) -> Iterator[None]:
    """Add to a refusal of an unknown subjob what the schedd of this machine knows of its jobs."""
    try:
        yield
    except Refused as refused:
        seen = seen_of(f'HTLeaseKey == "{key}"') if refused.code == "unknown-subjob" else None
        if seen is None:
            raise
        raise Refused(refused.code, f"{refused.detail}; {seen}", status=refused.status) from None


def seen_of(constraint: str, schedd_name: str | None = None) -> str | None:
    """Return what queue and recent history say of jobs; None when there are none to be seen."""
    since = f"EnteredCurrentStatus < {time.time() - _HISTORY_SECONDS:.0f}"
    try:
        ads = read_jobs(constraint, _ATTRIBUTES, schedd_name)
        if not ads:
            ads = read_history(constraint, _ATTRIBUTES, since, _SHOWN_MAX, schedd_name)
    except (ScheddUnavailable, BadConfig):
        return None  # nobody to ask here, and the server's answer stands
    if not ads:
        return None
    told = [standing_text(ad) for ad in ads[:_SHOWN_MAX]]
    if len(ads) > _SHOWN_MAX:
        told.append(f"there are {len(ads) - _SHOWN_MAX} more")
    return f"in the queue of this machine, {'; '.join(told)}"


def standing_text(ad: Mapping[str, Plain]) -> str:
    """Say how a job stands by its ad, and what to do where it is held; pure."""
    job = f"{ad.get('ClusterId')}.{ad.get('ProcId')}"
    status = ad.get("JobStatus")
    starts = "" if ad.get("NumJobStarts") else " and has never started"
    if status == HELD:
        code, subcode = (integer(ad, f"HoldReason{kind}Code") for kind in ("", "Sub"))
        hold = {"by": held_by(code, subcode), "reason": ad.get("HoldReason")}
        why = hold_text({**hold, "code": code, "subcode": subcode})
        return f"job {job} is held by {who_acted(hold)}{starts}: {why}; `condor_release {job}`"
    if status == REMOVED:
        reason = str(ad.get("RemoveReason") or "")
        by = who_acted({"by": removed_by(reason)})
        return f"job {job} was removed by {by}{starts}{f': {reason}' if reason else ''}"
    if status == COMPLETED:
        return f"job {job} ended with exit code {ad.get('ExitCode')}, without a lease"
    return f"job {job} {_STATES.get(status, 'is there')}{starts}"
