"""What HTCondor's words for a removal or hold mean: text -> a stable code and an outcome.

Runs wherever the end of a job is read, on the access point. The table knows the sentences of the
schedd, the Job Router, DAGMan and HTCondor-CE's default policy; rows are tried in order.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from htlease.rules.messages import OUTCOMES
from htlease.rules.reasons import WALL_TIME


class RemovalReason(NamedTuple):
    """Why a job left the queue or stands held."""

    #: Stable word for programs, e.g. `removed-by-policy`.
    code: str
    #: How that settles the subjob, one of OUTCOMES; None when it does not.
    outcome: str | None


_FAILED, _CANCELLED, _COMPLETE = "failed", "cancelled", "complete"

# (part of the text, code, outcome). Source: HTCondor-CE, config/01-ce-router-defaults.conf
# (REMOVE_REASON_1 to 4, DEFAULT_REMOVE_REASON, HOLD_REASON_1 and 2, OnExitHold); HTCondor,
# src/condor_utils/user_job_policy.cpp, condor_schedd.V6/schedd.cpp, condor_job_router/
# JobRouter.cpp, condor_dagman/dag.cpp, condor_gridmanager/basejob.cpp.
_TABLE = tuple(
    (re.compile(pattern, re.IGNORECASE), RemovalReason(code, outcome))
    for pattern, code, outcome in (
        # The router's copy goes, the source stays and may be routed again.
        (r"JobRouter aborted job", "route-withdrawn", None),
        # A CE that forbids restarts: no error of the job, but nobody's wish either, so a later
        # submission re-opens the subjob; from cancelled it would have to be forced.
        (r"due to disabled job retries", "removed-by-policy", _FAILED),
        (r"due to being in the hold state for", "held-too-long", _FAILED),
        (r"job exceeded allowed wall.?time", WALL_TIME, _FAILED),
        (r"due to job completed over .* days ago", "completed-long-ago", _COMPLETE),
        # The CE's last resort: none of its clauses was true any more when the text was made.
        (r"SYSTEM_PERIODIC_REMOVE due to input files missing", "input-files-missing", _FAILED),
        (r"HTCondor-CE held job due to no matching routes", "no-route", None),
        (r"HTCondor-CE held job due to invalid job universe", "invalid-universe", None),
        (r"wall clock time is less than the minimum", "too-short", None),
        # HOLD_IF_MEMORY_EXCEEDED and HOLD_IF_DISK_EXCEEDED, and what the starter enforces itself.
        (r"memory usage exceeded|cgroup memory limit", "memory-exceeded", None),
        (r"disk usage exceeded|exceeded .*\bdisk\b", "disk-exceeded", None),
        # allowed_job_duration and allowed_execute_duration, which hold; the removal of what they
        # held; and limits that a user or a site wrote themselves.
        (r"^The job exceeded allowed (job|execute) duration", WALL_TIME, None),
        (r"Remove\w* expression '.*HoldReasonCode *=[=?]=? *4[67]", WALL_TIME, _FAILED),
        (r"Remove\w* expression '.*(RemoteWallClockTime|CurrentStart\w*Date)", WALL_TIME, _FAILED),
        (r"Hold\w* expression '.*(RemoteWallClockTime|CurrentStart\w*Date)", WALL_TIME, None),
        (r"^wall.?time\b", WALL_TIME, _FAILED),
        (r"SYSTEM_PERIODIC_REMOVE", "removed-by-policy", _FAILED),
        (r"The job attribute \w*Remove\w* expression", "removed-by-own-policy", _FAILED),
        (r"OtherJobRemoveRequirements", "removed-with-other-job", _CANCELLED),
        (r"DAG (Limit|Abort|Removed):", "removed-by-dagman", _CANCELLED),
        (r"Node Error:", "removed-by-dagman", _CANCELLED),
        (r"Spooling is taking too long", "spooling-failed", _FAILED),
        (r"Staging of job files failed", "spooling-failed", _FAILED),
        (r"Job lease expired", "submitter-lease-expired", _FAILED),
        (r"via condor_rm|\(by user |Python-initiated action", "removed-by-user", _CANCELLED),
    )
)
_UNKNOWN = RemovalReason("removed", _CANCELLED)

assert all(reason.outcome in (None, *OUTCOMES) for _, reason in _TABLE)


def reason_of(text: str, is_routed_copy: bool = False) -> RemovalReason:
    """Return what a `RemoveReason`, or one of HTCondor-CE's hold reasons, says.

    The removal of a routed copy (its ad has `RoutedFromJobId`) settles nothing, whoever asked for
    it: the router sends the source out again.
    """
    found = next((reason for part, reason in _TABLE if part.search(text)), _UNKNOWN)
    return found._replace(outcome=None) if is_routed_copy else found
