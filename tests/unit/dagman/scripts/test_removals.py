"""Which subjobs lost their jobs to a DAG that ended before its time."""

from __future__ import annotations

from typing import Any

from htlease_dagman.scripts.queue_ad import ads_from
from htlease_dagman.scripts.removals import removals

DAGMAN = {"ClusterId": 7, "GlobalJobId": "ap1#7.0#100"}


def job(number: int, status: int, key: str | None) -> dict[str, Any]:
    ad = {"ClusterId": number, "GlobalJobId": f"ap1#{number}.0#101", "JobStatus": status}
    return ad if key is None else {**ad, "HTLeaseKey": key}


def test_each_removed_job_of_the_workflow_is_told_of_under_its_key() -> None:
    ads = [
        {**DAGMAN, "JobStatus": 2},
        job(8, 3, "wf/A"),
        job(9, 4, "wf/B"),
        job(10, 3, "other/C"),
        job(11, 3, None),
        job(12, 3, "wf/D.1"),
        {},
    ]
    found = [(subjob, ad["GlobalJobId"]) for subjob, ad in removals(ads, 7, "wf")]
    assert found == [("A", "ap1#8.0#101"), ("D.1", "ap1#12.0#101")]


def test_where_dagman_was_removed_too_that_is_told_with_each() -> None:
    ads = [job(8, 3, "wf/A"), {**DAGMAN, "JobStatus": 3}]
    found = [(subjob, ad["GlobalJobId"]) for subjob, ad in removals(ads, 7, "wf")]
    assert found == [("A", "ap1#8.0#101"), ("A", "ap1#7.0#100")]


def test_several_ads_are_told_apart() -> None:
    text = '\nClusterId = 8\nRemoveReason = "a"\n\nClusterId = 9\n\n\n'
    assert ads_from(text) == [{"ClusterId": 8, "RemoveReason": "a"}, {"ClusterId": 9}]
