"""Whose hold a held job is under, from the codes in its ad. Runs on the access point."""

from __future__ import annotations

#: `HoldReasonSubCode` of the holds that htlease sets; a release of ours touches no other.
OUR_SUBCODE = 8620

#: HoldReasonCode -> on whose behalf. Source: manual, "HoldReasonCode"; the codes of the schedd's
#: user requests, of a job's own and of the system's periodic and on-exit expressions.
_BY_CODE = {
    1: "user",
    15: "user",
    3: "job-policy",
    5: "job-policy",
    26: "site-policy",
    27: "site-policy",
}


def held_by(code: int | None, subcode: int | None) -> str:
    """Return who holds a job: `user`, `htlease`, `job-policy`, `site-policy` or `htcondor`."""
    if code == 1 and subcode == OUR_SUBCODE:
        return "htlease"
    return _BY_CODE.get(code or 0, "htcondor")
