"""What a HOLD script reads off a job's ad, and what it then tells the server."""

from __future__ import annotations

from typing import Any

import pytest

from htlease.condor.hold_codes import OUR_SUBCODE
from htlease_dagman.scripts.hold import held_in, reports

JOB = "ap1#13.0#101"
IDLE, RUNNING, REMOVED, COMPLETED, HELD = 1, 2, 3, 4, 5


def ad(status: int, code: int | None = 1, subcode: int = 0) -> dict[str, str | int]:
    last = "" if status == HELD else "Last"
    reason = {f"{last}HoldReasonCode": code, f"{last}HoldReasonSubCode": subcode}
    starts = {"NumJobStarts": 2, "NumShadowStarts": 3}
    given = {"GlobalJobId": JOB, "JobStatus": status, **starts, **reason}
    return {f"{last}HoldReason": "quota", **{k: v for k, v in given.items() if v is not None}}


def told(of: dict[str, str | int]) -> list[str]:
    return [str(body.get("what", name)) for name, body in reports(held_in(of), of)]


@pytest.mark.parametrize("status", [IDLE, RUNNING, REMOVED, COMPLETED, HELD])
def test_a_hold_is_read_whether_it_lasts_or_is_over(status: int) -> None:
    assert held_in(ad(status)) == {
        "global_job_id": JOB,
        "by": "user",
        "reason": "quota",
        "code": 1,
        "subcode": 0,
    }


def test_an_earlier_hold_is_not_taken_for_the_present_one() -> None:
    both = {**ad(HELD, 3), "LastHoldReason": "disk", "LastHoldReasonCode": 1}
    assert (held_in(both)["code"], held_in(both)["reason"]) == (3, "quota")


@pytest.mark.parametrize("nothing", [{}, ad(IDLE, None), {"JobStatus": 1, "LastHoldReasonCode": 1}])
def test_of_what_the_ad_does_not_say_nothing_is_made_up(nothing: dict[str, Any]) -> None:
    assert held_in(nothing) == {}


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (ad(HELD), ["held"]),
        (ad(IDLE), ["held", "released"]),
        (ad(RUNNING), ["held", "released"]),
        (ad(COMPLETED), ["held", "released"]),
        (ad(REMOVED), ["held"]),
        (ad(HELD, 47), ["held", "ended"]),
        (ad(IDLE, 47), ["held", "ended", "released"]),
        # Its counters are those of a later start, which must not be ended.
        (ad(RUNNING, 47), ["held", "released"]),
        (ad(COMPLETED, 47), ["held", "released"]),
        (ad(HELD, 1, OUR_SUBCODE), ["held"]),
        # `htlease dag hold` and `release` have told of both.
        (ad(IDLE, 1, OUR_SUBCODE), []),
    ],
)
def test_what_is_told(of: dict[str, str | int], expected: list[str]) -> None:
    assert told(of) == expected
