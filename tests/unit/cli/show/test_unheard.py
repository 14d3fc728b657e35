"""How a job that never started is described to who asks for its subjob."""

from __future__ import annotations

from typing import Any

import pytest

from htlease_cli.show.unheard import standing_text

_NEVER = " and has never started"


@pytest.mark.parametrize(
    ("ad", "text"),
    [
        (
            {"JobStatus": 5, "HoldReason": "submitted on hold"},
            f"job 7.0 is held by HTCondor{_NEVER}: submitted on hold; `condor_release 7.0`",
        ),
        (
            {"JobStatus": 5, "HoldReason": "quota", "HoldReasonCode": 1, "HoldReasonSubCode": 0},
            f"job 7.0 is held by its user{_NEVER}: quota (hold code 1.0); `condor_release 7.0`",
        ),
        (
            {"JobStatus": 3, "RemoveReason": "via condor_rm (by user ann)"},
            f"job 7.0 was removed by its user{_NEVER}: via condor_rm (by user ann)",
        ),
        ({"JobStatus": 3}, f"job 7.0 was removed by somebody{_NEVER}"),
        ({"JobStatus": 1}, f"job 7.0 is idle{_NEVER}"),
        ({"JobStatus": 2, "NumJobStarts": 1}, "job 7.0 runs"),
        (
            {"JobStatus": 4, "NumJobStarts": 1, "ExitCode": 3},
            "job 7.0 ended with exit code 3, without a lease",
        ),
        ({}, f"job 7.0 is there{_NEVER}"),
    ],
)
def test_a_job_that_asked_for_no_lease(ad: dict[str, Any], text: str) -> None:
    assert standing_text({"ClusterId": 7, "ProcId": 0, **ad}) == text
