"""Which jobs of an earlier run of a DAG are asked about, and how their ads are read."""

from __future__ import annotations

from typing import Any

import pytest

from htlease.condor.hold_codes import removed_by
from htlease_dagman.scripts.previous_run import job_number, left_open
from htlease_dagman.scripts.queue_ad import ad_from

OLD, NEW = "ap1#12.0#100", "ap1#39.0#200"
JOB = "ap1#13.0#101"


def document(*names: str | None, outcome: str | None = None, removed: Any = ()) -> dict[str, Any]:
    submissions = [{"global_job_id": name} for name in names]
    return {"submissions": submissions, "outcome": outcome, "removed_jobs": list(removed)}


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        (document(f"{OLD}/0", JOB, f"{NEW}/0"), [JOB, OLD]),
        (document(f"{OLD}/0", f"{NEW}/0"), [OLD]),
        (document(f"{NEW}/0", JOB, f"{NEW}/1"), []),
        (document(f"{NEW}/0"), []),
        (document(JOB, f"{NEW}/0"), []),
        (document(f"{OLD}/0", JOB, f"{NEW}/0", outcome="complete"), []),
        (document(f"{OLD}/0", JOB, f"{NEW}/0", removed=[JOB]), [OLD]),
        (document(f"{OLD}/0", None, f"{NEW}/0"), [OLD]),
    ],
)
def test_only_what_an_earlier_run_left_open_is_asked_about(
    known: dict[str, Any], asked: list[str]
) -> None:
    assert list(left_open(known, NEW)) == asked


def test_a_jobs_number_is_in_its_global_id() -> None:
    assert job_number("a#b#12.3#1795225431") == "12.3"


def test_texts_and_numbers_of_an_ad_are_read() -> None:
    text = (
        'GlobalJobId = "ap1#13.0#101"\nJobStatus = 3\nRank = 0.0\n'
        'RemoveReason = "via condor_rm, \\"now\\" (by user ann)"\n'
    )
    assert ad_from(text) == {
        "GlobalJobId": "ap1#13.0#101",
        "JobStatus": 3,
        "RemoveReason": 'via condor_rm, "now" (by user ann)',
    }
    assert ad_from("") == {}


@pytest.mark.parametrize(
    ("reason", "who"),
    [
        ("via condor_rm (by user ann)", "user"),
        ("SYSTEM_PERIODIC_REMOVE", "site-policy"),
        ("due to job exceeded allowed walltime: 9 min", "site-policy"),
        (
            "The job attribute PeriodicRemove expression 'HoldReasonCode == 47' evaluated to TRUE",
            "job-policy",
        ),
        ("Spooling is taking too long", "htcondor"),
        ("", "somebody"),
    ],
)
def test_the_reason_says_who_removed_a_job(reason: str, who: str) -> None:
    assert removed_by(reason) == who
