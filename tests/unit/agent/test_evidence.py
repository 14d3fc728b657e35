"""The agent's evidence: what event log, startd and schedd say, and which of it counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from htlease.condor.queued_ad import COMPLETED, HELD
from htlease.condor.schedd import ScheddUnavailable
from htlease.rules.end_proof import Job, LogEvent
from htlease_agent.reconcile.evidence import AskedEvidence
from htlease_agent.reconcile.job_end import End

STARTD = "<10.77.0.12:9618?addrs=10.77.0.12-9618&sock=startd_111_f8b9>"
END = End(
    "ap#12.0#1796117722",
    *("w/s", COMPLETED, 1, 1, 0, None, "", False),
    Job(5, False, True, STARTD),
    "/home/ann/log",
)
TERMINATED = [LogEvent(0), LogEvent(1), LogEvent(5)]


class Answers:
    """What the helper process would answer."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def call(self, name: str, arguments: Sequence[Any], seconds: float, whom: str) -> Any:
        self.asked.append(name)
        if name not in self.answers:
            raise ScheddUnavailable(f"{whom} does not answer")
        return self.answers[name]


def evidence(**answers: Any) -> tuple[AskedEvidence, Answers]:
    made, told = AskedEvidence(None), Answers(**answers)
    made._process = told  # type: ignore[assignment]
    return made, told


@pytest.mark.parametrize(
    ("born_at", "is_proof", "why"),
    [
        (1796117000, True, "(005)"),
        (1796118000, False, "lost the job queue"),
        (None, False, "does not tell how old"),
    ],
)
def test_a_log_counts_in_the_queue_that_gave_the_number(
    born_at: int | None, is_proof: bool, why: str
) -> None:
    asked, told = evidence(read_job_log=[TERMINATED], queue_birthdate=born_at)
    found = asked.finding(END)
    assert (found.is_proof, why in found.why) == (is_proof, True), found
    # The queue's age is asked for last: one that is lost meanwhile is noticed.
    assert told.asked[:2] == ["read_job_log", "queue_birthdate"]


def test_a_schedd_that_is_silent_makes_no_proof_of_a_log() -> None:
    asked, _ = evidence(read_job_log=[TERMINATED])
    assert not asked.finding(END).is_proof


def test_the_startd_proves_whatever_became_of_the_queue() -> None:
    slots = [{"MyAddress": STARTD}]
    asked, _ = evidence(read_job_log=[TERMINATED], queue_birthdate=1796118000, read_slots=slots)
    assert asked.finding(END).is_proof


def test_of_a_held_job_no_log_is_read() -> None:
    asked, told = evidence(read_job_log=[TERMINATED], queue_birthdate=1796117000)
    assert not asked.finding(held()).is_proof
    assert told.asked == ["read_slots"]


def held() -> End:
    """Return the same end as a hold by a limit on run time."""
    return End(**{**END.__dict__, "status": HELD})
