"""What a person is told that an open subjob waits for."""

from __future__ import annotations

from typing import Any

import pytest

from htlease_cli.show.waiting import waits_for, workflow_waits_for

JOB = "ap1#42.0#1795225431"
HOLD = {"global_job_id": JOB, "by": "user", "reason": "quota", "code": 1, "subcode": 0}


def subjob(status: str, *, is_done: bool = True, **changes: Any) -> dict[str, Any]:
    known = {
        "workflow": "run7",
        "subjob": "s1",
        "status": status,
        "outcome": None,
        "exit_code": None,
        "phases": [{"name": "run", "completed_fence": 1 if is_done else None}],
        "submissions": [{"global_job_id": JOB}],
        "job_hold": None,
        "removed_jobs": [],
    }
    return {**known, **changes}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (subjob("exited", exit_code=0), "`htlease commit run7/s1`"),
        (subjob("exited", exit_code=3), "`htlease settle run7/s1 --outcome failed`"),
        (subjob("exited", exit_code=0, is_done=False), "--outcome failed`"),
        (subjob("abandoned"), "the next start of its job; `condor_q -better-analyze 42.0`"),
        (subjob("abandoned", job_hold=HOLD), "`condor_release 42.0`"),
        (subjob("exited", job_hold=HOLD), "held by its user: quota"),
        (subjob("abandoned", removed_jobs=[JOB]), "42.0 was removed"),
        (subjob("abandoned", removed_jobs=["ap1#41.0#1"]), "the next start"),
        (subjob("lapsed"), "ran out without a word"),
        (subjob("waiting"), "a start of its job"),
        (subjob("waiting", submissions=[{"global_job_id": "d#1/0"}]), "`condor_q`"),
        (subjob("active"), None),
        (subjob("recalled"), None),
        (subjob("complete", outcome="complete"), None),
    ],
)
def test_what_is_waited_for_is_said_with_a_command(
    document: dict[str, Any], words: str | None
) -> None:
    said = waits_for(document)
    assert (said is None) == (words is None)
    assert words is None or words in str(said)


def test_a_workflow_says_once_what_all_that_have_exited_wait_for() -> None:
    subjobs = [subjob("exited"), subjob("complete"), subjob("exited", subjob="s2")]
    said = workflow_waits_for("run7", subjobs)
    assert said is not None and said.startswith("2 exited:")
    assert "`htlease commit run7`" in said and "`htlease explain run7/s1`" in said
    assert workflow_waits_for("run7", [subjob("active"), subjob("complete")]) is None
