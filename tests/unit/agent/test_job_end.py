"""What the end of a job closes, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest

from htlease.condor.schedd import Plain
from htlease.rules import messages as m
from htlease_agent.reconcile.job_end import Closing, End, closing_of, end_of

JOB = "ap#7.0#1795225431"
AD: dict[str, Plain] = {
    "GlobalJobId": JOB,
    "HTLeaseKey": "wf/a",
    "JobStatus": 4,
    "NumJobStarts": 2,
    "NumShadowStarts": 3,
    "ExitBySignal": False,
    "ExitCode": 0,
    "JobCurrentStartDate": 1000,
}


def ad(**changes: Plain | None) -> dict[str, Plain]:
    merged: dict[str, Plain | None] = {**AD, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def end(**changes: Plain | None) -> End:
    found = end_of(ad(**changes))
    assert found is not None
    return found


def phase(name: str, is_complete: bool) -> dict[str, Any]:
    return {"name": name, "completed_fence": 1 if is_complete else None}


def subjob(*phases: dict[str, Any], job: str = JOB, **changes: Any) -> dict[str, Any]:
    return {
        "outcome": None,
        "status": "active",
        "epoch": 1,
        "phase": phases[0]["name"] if phases else None,
        "plan": {"phases": [], "profile": None},
        "phases": list(phases),
        "submissions": [{"epoch": 1, "global_job_id": job}],
        "attempts": [{"kind": "job", "attempt_id": f"{job}@2.3"}],
        **changes,
    }


RUN = phase("run", False)


@pytest.mark.parametrize("status", [1, 2, 5, 6, 7, None])
def test_a_job_that_may_run_again_has_not_ended(status: int | None) -> None:
    assert end_of(ad(JobStatus=status)) is None


def test_a_hold_by_a_limit_on_run_time_ends_a_start_and_closes_nothing_itself() -> None:
    reason = "The job exceeded allowed execute duration of 00:06"
    held = end(JobStatus=5, HoldReason=reason, ExitCode=None)
    assert held.reason == f"walltime: {reason}"
    assert closing_of(held, subjob(RUN, status="abandoned")) is None


def test_any_other_hold_is_no_end() -> None:
    assert end_of(ad(JobStatus=5, HoldReason="via condor_hold (by user ann)")) is None


def test_a_job_without_key_has_nothing_to_report() -> None:
    assert end_of(ad(HTLeaseKey=None)) is None


def test_the_start_is_named_as_the_execution_point_named_it() -> None:
    assert (end().job_starts, end().shadow_starts) == (2, 3)


def test_a_good_end_with_all_phases_complete_is_committed() -> None:
    closing = closing_of(end(), subjob(phase("a", True), phase("b", True)))
    assert closing == Closing("complete", "the job ended with exit code 0")


def test_the_end_of_a_job_without_phases_of_its_own_completes_the_one() -> None:
    closing = closing_of(end(), subjob(RUN))
    assert closing and (closing.outcome, closing.shown_complete) == ("complete", ("run",))


def test_a_good_end_with_phases_missing_is_a_failure_that_names_them() -> None:
    closing = closing_of(end(), subjob(phase("a", True), phase("b", False)))
    assert closing and closing.outcome == "failed" and "not complete: b" in closing.reason


def test_a_state_machine_that_is_in_no_final_state_has_failed() -> None:
    plan = {"phases": [], "profile": "cts"}
    closing = closing_of(end(), subjob(phase("queued", True), plan=plan))
    assert closing and closing.outcome == "failed" and "in state queued" in closing.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ExitCode": 3}, "the job ended with exit code 3"),
        ({"ExitBySignal": True, "ExitSignal": 9}, "the job was killed by signal 9"),
    ],
)
def test_another_end_is_a_failure(changes: dict[str, Any], reason: str) -> None:
    assert closing_of(end(**changes), subjob(RUN)) == Closing("failed", reason)


@pytest.mark.parametrize(
    ("text", "outcome", "code"),
    [
        ("via condor_rm (by user alice)", "cancelled", "removed-by-user"),
        (
            "CE job removed by SYSTEM_PERIODIC_REMOVE due to disabled job retries",
            "failed",
            "removed-by-policy",
        ),
        (
            "CE job removed by SYSTEM_PERIODIC_REMOVE due to being in the hold state for 24 hours.",
            "failed",
            "held-too-long",
        ),
        (
            "CE job removed by SYSTEM_PERIODIC_REMOVE due to job exceeded allowed walltime: 9 min",
            "failed",
            "walltime",
        ),
    ],
)
def test_a_removal_is_closed_by_who_wanted_it(text: str, outcome: str, code: str) -> None:
    closing = closing_of(end(JobStatus=3, RemoveReason=text), subjob(RUN))
    assert closing == Closing(outcome, f"{code}: {text}")


def test_the_exit_code_of_an_earlier_start_is_not_that_of_the_removed_one() -> None:
    assert end(JobStatus=3, ExitCode=0).exit_code is None


def test_a_remark_says_what_became_of_the_job_and_why_its_lease_goes_on() -> None:
    assert end().remark("no log") == m.Observed(
        JOB,
        "ended",
        reason="the job ended with exit code 0; its lease has to run out: no log",
    )
    text = "via condor_rm -forcex (by user alice)"
    removed = end(JobStatus=3, RemoveReason=text).remark("no log")
    assert removed == m.Observed(JOB, "removed", "user", text)


@pytest.mark.parametrize(
    ("changes", "log"),
    [
        ({}, None),
        ({"UserLog": "/home/ann/log"}, "/home/ann/log"),
        ({"UserLog": "log", "Iwd": "/home/ann"}, "/home/ann/log"),
    ],
)
def test_where_the_event_log_is(changes: dict[str, Any], log: str | None) -> None:
    assert end(**changes).log == log


@pytest.mark.parametrize(
    "document",
    [
        subjob(RUN, outcome="complete"),
        subjob(RUN, attempts=[{"kind": "job", "attempt_id": "ap#9.0#1795225500@1.1"}]),
        subjob(RUN, job="ap#9.0#1795225500"),
        subjob(
            RUN,
            epoch=2,
            submissions=[{"epoch": 1, "global_job_id": JOB}, {"epoch": 2, "global_job_id": None}],
        ),
        subjob(RUN, submissions=[], attempts=[]),
    ],
    ids=["closed", "another held it", "another's", "a later one is to come", "never seen"],
)
def test_a_subjob_that_is_not_this_jobs_any_more_stays_as_it_is(document: dict[str, Any]) -> None:
    assert closing_of(end(), document) is None


def test_an_end_of_which_nothing_is_known_closes_nothing() -> None:
    assert closing_of(end(ExitCode=None), subjob(RUN)) is None


def test_a_routed_copy_is_left_to_the_routers_hooks() -> None:
    assert closing_of(end(RoutedFromJobId="3.0"), subjob(RUN)) is None


def test_a_submission_that_never_ran_is_closed_when_it_is_removed() -> None:
    document = subjob(RUN, attempts=[], status="waiting")
    closing = closing_of(end(JobStatus=3, RemoveReason="via condor_rm (by user a)"), document)
    assert closing and closing.outcome == "cancelled"
