"""What queue and history say of a job that the server has not heard of yet."""

from __future__ import annotations

from typing import Any

import pytest

from htlease.condor.queued_ad import HELD, REMOVED
from htlease.condor.schedd import Plain
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease_cli.dag.reconcile import end_to_report, observation

JOB = "ap1#13.0#101"
KEY = SubjobKey("wf", "A")
HOLD = {"global_job_id": JOB, "by": "user", "reason": "quota", "code": 1, "subcode": 0}
HELD_AD: dict[str, Plain] = {
    "GlobalJobId": JOB,
    "JobStatus": HELD,
    "HoldReason": "quota",
    "HoldReasonCode": 1,
    "HoldReasonSubCode": 0,
}
REMOVED_AD: dict[str, Plain] = {
    "GlobalJobId": JOB,
    "JobStatus": REMOVED,
    "RemoveReason": "via condor_rm (by user ann)",
    "NumJobStarts": 2,
    "NumShadowStarts": 3,
}


def document(**changes: Any) -> dict[str, Any]:
    attempts = [{"attempt_id": f"{JOB}@2.3"}]
    known = {"job_hold": None, "removed_jobs": [], "status": "active", "attempts": attempts}
    return {**known, **changes}


@pytest.mark.parametrize(
    ("ad", "known", "observed"),
    [
        (HELD_AD, {}, m.Observed(JOB, "held", "user", "quota", 1, 0)),
        (HELD_AD, {"job_hold": HOLD}, None),
        (
            {**HELD_AD, "HoldReason": "other"},
            {"job_hold": HOLD},
            m.Observed(JOB, "held", "user", "other", 1, 0),
        ),
        ({**HELD_AD, "JobStatus": 1}, {"job_hold": HOLD}, m.Observed(JOB, "released")),
        ({**HELD_AD, "JobStatus": 1}, {}, None),
        (REMOVED_AD, {}, m.Observed(JOB, "removed", "user", "via condor_rm (by user ann)")),
        (REMOVED_AD, {"removed_jobs": [JOB]}, None),
        ({}, {"job_hold": HOLD}, None),
    ],
)
def test_only_what_is_on_record_and_news_is_reported(
    ad: dict[str, Plain], known: dict[str, Any], observed: m.Observed | None
) -> None:
    assert observation(JOB, document(**known), ad) == observed


def test_the_attempt_of_a_job_that_has_left_the_queue_may_be_over() -> None:
    ended = end_to_report(KEY, document(), REMOVED_AD)
    assert ended is not None
    assert (ended.global_job_id, ended.job_starts, ended.shadow_starts) == (JOB, 2, 3)


@pytest.mark.parametrize(
    ("ad", "status"),
    [
        (REMOVED_AD, "abandoned"),
        (HELD_AD, "active"),
        ({}, "active"),
        ({**REMOVED_AD, "GlobalJobId": "ap1#12.0#100"}, "active"),
    ],
)
def test_an_attempt_without_an_end_on_record_is_left_alone(
    ad: dict[str, Plain], status: str
) -> None:
    assert end_to_report(KEY, document(status=status), ad) is None
