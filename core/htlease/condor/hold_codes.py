"""Who held or removed a job, from the codes and reasons in its ad. Runs on the access point."""

from __future__ import annotations

from htlease.rules.reasons import WALL_TIME

#: `HoldReasonSubCode` of the holds that htlease sets; a release of ours touches no other.
OUR_SUBCODE = 8620

#: HoldReasonCode -> on whose behalf. Source: manual, "HoldReasonCode"; the codes of the schedd's
#: user requests, of a job's own and of the system's periodic and on-exit expressions, and of the
#: startd's WANT_HOLD.
_BY_CODE = {
    1: "user",
    15: "user",
    3: "job-policy",
    5: "job-policy",
    21: "site-policy",
    26: "site-policy",
    27: "site-policy",
}

#: HoldReasonCode of allowed_job_duration and allowed_execute_duration.
WALL_TIME_CODES = (46, 47)

_BY_REMOVAL = {
    "removed-by-user": "user",
    "removed-by-dagman": "dagman",
    "removed-with-other-job": "dagman",
    "removed-by-own-policy": "job-policy",
    "removed-by-policy": "site-policy",
    "held-too-long": "site-policy",
    WALL_TIME: "site-policy",
    "completed-long-ago": "site-policy",
}


def held_by(code: int | None, subcode: int | None) -> str:
    """Return who holds a job: `user`, `htlease`, `job-policy`, `site-policy` or `htcondor`."""
    if code == 1 and subcode == OUR_SUBCODE:
        return "htlease"
    return _BY_CODE.get(code or 0, "htcondor")


def removed_by(reason: str) -> str:
    """Return who removed a job, from its `RemoveReason`; `somebody` where it does not say."""
    from htlease.condor.hold_remove_reasons import reason_of  # a table that most callers never need

    code = reason_of(reason).code
    if code == WALL_TIME and reason.startswith("The job attribute"):
        return "job-policy"
    return _BY_REMOVAL.get(code, "htcondor" if code != "removed" else "somebody")
