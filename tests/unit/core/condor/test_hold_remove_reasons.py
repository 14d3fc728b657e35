"""The words of HTCondor and HTCondor-CE for a removal, and what each one settles."""

import pytest

from htlease.condor.hold_remove_reasons import reason_of

CE_REMOVED = "CE job removed by SYSTEM_PERIODIC_REMOVE due to "
NO_ROUTE = (
    "HTCondor-CE held job due to no matching routes, route job limit, or route failure threshold; "
    "see 'HTCondor-CE Troubleshooting Guide'"
)
OWN_REMOVE = "The job attribute PeriodicRemove expression"
OWN_HOLD = "The job attribute PeriodicHold expression"
SITE_REMOVE = "The system macro SYSTEM_PERIODIC_REMOVE expression"

# (text as the ad has it, code, outcome)
TEXTS = [
    (CE_REMOVED + "disabled job retries", "removed-by-policy", "failed"),
    (CE_REMOVED + "being in the hold state for 24 hours.", "held-too-long", "failed"),
    (
        CE_REMOVED + "job exceeded allowed walltime: 259200 minutes.",
        "walltime",
        "failed",
    ),
    ("The job exceeded allowed execute duration of 00:06", "walltime", None),
    ("The job exceeded allowed job duration of 1+00:00:00", "walltime", None),
    (
        f"{OWN_REMOVE} 'JobStatus == 5 && HoldReasonCode == 47' evaluated to TRUE",
        "walltime",
        "failed",
    ),
    (
        f"{SITE_REMOVE} 'RemoteWallClockTime > 604800' evaluated to TRUE",
        "walltime",
        "failed",
    ),
    (
        f"{OWN_HOLD} 'time() - JobCurrentStartDate > 6' evaluated to TRUE",
        "walltime",
        None,
    ),
    ("wall time of queue long: 72 h", "walltime", "failed"),
    ("memory usage exceeded request_memory", "memory-exceeded", None),
    (
        "Error from slot1_1@ep1: Job has gone over cgroup memory limit of 128 megabytes.",
        "memory-exceeded",
        None,
    ),
    ("disk usage exceeded request_disk", "disk-exceeded", None),
    (CE_REMOVED + "job completed over 30 days ago.", "completed-long-ago", "complete"),
    (CE_REMOVED + "input files missing.", "input-files-missing", "failed"),
    (NO_ROUTE, "no-route", None),
    ("HTCondor-CE held job due to invalid job universe.", "invalid-universe", None),
    (
        "The job's wall clock time is less than the minimum specified by the job (5) min",
        "too-short",
        None,
    ),
    (
        "The system macro SYSTEM_PERIODIC_REMOVE expression 'NumJobStarts > 3' evaluated to TRUE",
        "removed-by-policy",
        "failed",
    ),
    (
        "The job attribute PeriodicRemove expression 'NumJobStarts > 3' evaluated to TRUE",
        "removed-by-own-policy",
        "failed",
    ),
    ("JobRouter aborted job (by user condor)", "route-withdrawn", None),
    ("Node Error: DAG node A (7.0.0) got an abort event.", "removed-by-dagman", "cancelled"),
    (
        "DAG Abort: DAG is exiting and writing rescue file. (by user alice)",
        "removed-by-dagman",
        "cancelled",
    ),
    (
        "DAG Removed: User removed scheduler job from queue. (by user alice)",
        "removed-by-dagman",
        "cancelled",
    ),
    ("Spooling is taking too long", "spooling-failed", "failed"),
    ("via condor_rm (by user alice)", "removed-by-user", "cancelled"),
    ("via condor_rm -forcex (by user root)", "removed-by-user", "cancelled"),
    ("Python-initiated action (by user alice)", "removed-by-user", "cancelled"),
    ("my own words (by user alice)", "removed-by-user", "cancelled"),
    ("", "removed", "cancelled"),
    ("words of a later version", "removed", "cancelled"),
]


@pytest.mark.parametrize(("text", "code", "outcome"), TEXTS, ids=[text for text, _, _ in TEXTS])
def test_a_text_has_a_code_and_an_outcome(text: str, code: str, outcome: str | None) -> None:
    assert reason_of(text) == (code, outcome)


@pytest.mark.parametrize("text", [text for text, _, _ in TEXTS])
def test_the_removal_of_a_routed_copy_settles_nothing(text: str) -> None:
    assert reason_of(text, is_routed_copy=True) == (reason_of(text).code, None)
