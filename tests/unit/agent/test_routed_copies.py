"""Routed copies among submissions: whose end a source's end is, and by which IDs one finds them."""

from __future__ import annotations

from typing import Any

import pytest

from htlease.condor.queued_ad import COMPLETED
from htlease.rules.end_proof import job_from
from htlease_agent.reconcile.job_end import End
from htlease_agent.reconcile.routed_copies import as_of_copy, links_of


def end(job: str, is_routed_copy: bool = False) -> End:
    return End(job, "w/s", COMPLETED, 1, 1, 0, None, "", is_routed_copy, job_from({}), None)


def submission(epoch: int, job: str | None, source: str | None = None) -> dict[str, Any]:
    links = {} if source is None else {"source": source}
    return {"epoch": epoch, "global_job_id": job, "links": links}


#: (what happened, submissions, whose end is reported, whose end it is)
ENDS = [
    ("never routed", [submission(1, "ap#1")], "ap#1", "ap#1"),
    ("routed once", [submission(1, "ap#2", "ap#1")], "ap#1", "ap#2"),
    (
        "announced before it was submitted",
        [submission(1, None, "ap#1"), submission(1, "ap#2")],
        "ap#1",
        "ap#2",
    ),
    (
        "routed again",
        [submission(1, "ap#2", "ap#1"), submission(2, "ap#3", "ap#1")],
        "ap#1",
        "ap#3",
    ),
    (
        "a copy that was a source again",
        [submission(1, "site#2", "ce#1"), submission(2, "site#3", "site#2")],
        "ce#1",
        "site#3",
    ),
    (
        "another submission has taken over",
        [submission(1, "ap#2", "ap#1"), submission(2, "ap#9")],
        "ap#1",
        "ap#1",
    ),
    ("the next copy is only announced", [submission(1, None, "ap#1")], "ap#1", "ap#1"),
    (
        "links that lead in a circle",
        [submission(1, "ap#2", "ap#3"), submission(2, "ap#3", "ap#2")],
        "ap#1",
        "ap#1",
    ),
]


@pytest.mark.parametrize(
    ("submissions", "reported", "is_of"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS]
)
def test_a_sources_end_is_that_of_its_newest_copy(
    submissions: list[dict[str, Any]], reported: str, is_of: str
) -> None:
    subjob = {"epoch": max(each["epoch"] for each in submissions), "submissions": submissions}
    assert as_of_copy(end(reported), subjob).global_job_id == is_of


def test_a_copy_stays_a_copy_when_its_own_copy_ends() -> None:
    subjob = {"epoch": 2, "submissions": [submission(1, "b", "a"), submission(2, "c", "b")]}
    assert as_of_copy(end("b", is_routed_copy=True), subjob).is_routed_copy


def test_all_ids_of_a_route_to_a_batch_system_are_links() -> None:
    source = {"GlobalJobId": "ce#5.0#1", "SubmitterGlobalJobId": "factory#9.0#1", "Owner": "alice"}
    body = {
        "job": "5.0",
        "routed_job": "6.0",
        "global_job_id": "ce#6.0#1",
        "grid_job_id": "batch slurm ce_9619#6.0#1 slurm/20260102/4711",
    }
    assert links_of(source, body) == {
        "submitter": "factory#9.0#1",
        "source": "ce#5.0#1",
        "source-job": "5.0",
        "routed-job": "6.0",
        "grid": "batch slurm ce_9619#6.0#1 slurm/20260102/4711",
        "batch": "4711",
    }


def test_a_copy_that_is_not_there_yet_has_its_sources_ids_alone() -> None:
    assert links_of({"GlobalJobId": "ap#5.0#1"}, {"job": "5.0"}) == {
        "source": "ap#5.0#1",
        "source-job": "5.0",
    }
