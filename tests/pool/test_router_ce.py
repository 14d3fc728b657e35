"""Through a computing element: submitter, CE and batch system have one subjob among them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from tests.pool.computing_element import ComputingElement
from tests.pool.lab import PROJECT, Lab
from tests.pool.routing import Agent, RoutedJob, found, submit_routed

RETRIES = "ENABLE_JOB_RETRIES = {}\n"
#: What the gridmanager of a submitter sets on a job that it sends to a CE.
SUBMITTER = "factory#812.0#1795225431"


@dataclass
class Site:
    """A CE in front of the pool's own schedd."""

    #: Its jobs are the CE's.
    lab: Lab
    ce: ComputingElement
    agent: Agent

    def submit(self, name: str, blocked: list[int]) -> RoutedJob:
        """Submit to the CE as a remote submitter would."""
        return submit_routed(
            self.lab,
            name,
            {"block": {"compute": blocked}},
            lines=[
                # The CE has no negotiator that could match its own jobs.
                "requirements = true",
                f'My.SubmitterGlobalJobId = "{SUBMITTER}-{name}"',
            ],
        )


@pytest.fixture(scope="module")
def site(lab: Lab) -> Iterator[Site]:
    text = (PROJECT / "hooks/condor/access-point.conf").read_text()
    # HTCondor-CE's package lays this down beside the site's own configuration.
    lab.pool.configure("ap", "site", "QUEUE_SUPER_USER_MAY_IMPERSONATE = .*\n" + text)
    ce = ComputingElement(lab.pool)
    at_ce = replace(lab, pool=ce)
    ce.start(lab, RETRIES.format(True))
    agent = Agent(at_ce, ce.hooks)
    agent.start()
    yield Site(at_ce, ce, agent)
    agent.stop()
    ce.stop()
    lab.pool.configure("ap", "site", None)


def submit_held(lab: Lab) -> int:
    """Submit a job that stays in the queue, and return its cluster."""
    return lab.pool.submit("executable = /bin/true\nhold = true\nqueue\n")


def batch_job(site: Site, lab: Lab, job: RoutedJob, after: int = 0) -> dict[str, object]:
    """Wait for the CE's copy in the batch system's queue to run, and return its ad."""

    def running() -> list[dict[str, object]]:
        return [
            ad
            for ad in lab.pool.jobs()
            if ad.get("RoutedFromJobId") == job.source.job
            and ad["JobStatus"] == 2
            and int(ad["ClusterId"]) > after
        ]

    ads: list[dict[str, object]] = lab.wait_for(running, f"{job.source.job} to run", 90)
    return ads[0]


def test_identity_and_record_go_through_the_ces_transforms(lab: Lab, site: Site) -> None:
    job = site.submit("ce", [1, 2, 3])
    first = batch_job(site, lab, job)
    job.source.wait_told("alive", "compute", attempt=1)
    copy = f"{first['ClusterId']}.0"
    lab.pool.vacate(copy)
    job.source.wait_told("alive", "compute", attempt=2)
    lab.pool.remove(copy)
    second = batch_job(site, lab, job, int(str(first["ClusterId"])))
    job.source.wait_told("alive", "compute", attempt=3)
    assert first["CondorCE"] == 1, "the CE's own transforms have run"
    assert first["HTLeaseKey"] == second["HTLeaseKey"] == job.source.key
    assert first["HTLeaseRouteGeneration"] == 1
    assert second["HTLeaseRouteGeneration"] == 2
    lab.pool.vacate(f"{second['ClusterId']}.0")
    document = job.source.wait_status("complete")
    ad = job.wait_final()
    assert ad["HTLeaseState"] == "complete"
    assert job.epochs() == [1, 1, 2, 2]
    assert [attempt["fence"] for attempt in document["attempts"]] == [1, 2, 3, 4]
    for identifier in (
        *(f"{SUBMITTER}-ce", str(ad["GlobalJobId"]), job.source.job),
        *(str(first["GlobalJobId"]), str(second["GlobalJobId"]), copy),
    ):
        assert job.source.key in found(lab, identifier), identifier


def test_a_ce_that_forbids_restarts_is_no_error_of_the_job(lab: Lab, site: Site) -> None:
    site.ce.reconfigure(RETRIES.format(False))
    try:
        job = site.submit("forbidden", [1, 2])
        copy = batch_job(site, lab, job)
        job.source.wait_told("alive", "compute", attempt=1)
        # Idle for long enough that the CE is bound to see it.
        lab.pool.run(["condor_qedit", f"{copy['ClusterId']}.0", "Requirements", "false"])
        lab.pool.vacate(f"{copy['ClusterId']}.0")
        ad = job.source.wait_gone(90)
        assert ad["JobStatus"] == 3
        assert "disabled job retries" in ad["RemoveReason"]
        document = job.source.wait_status("failed")
    finally:
        site.ce.reconfigure(RETRIES.format(True))
    last = job.source.history()[-1]
    assert last["reason"].startswith("removed-by-policy: "), json.dumps(last)
    assert document["outcome"] == "failed"


def test_a_agent_of_the_other_configuration_is_refused(lab: Lab, site: Site) -> None:
    """Job IDs of CE and site overlap, so the agent of the one must not answer for the other."""
    bystander = submit_held(lab)
    while (before := submit_held(site.lab)) < bystander:
        pass
    while bystander <= before:
        bystander = submit_held(lab)
    # Both schedds have this machine's name, so in one second the same number is the same ID.
    second = int(time.time())
    lab.wait_for(lambda: int(time.time()) > second, "the next second", 5)
    site.agent.stop()
    wrong = Agent(lab, site.ce.hooks)
    wrong.start()
    try:
        job = site.submit("mistaken", [])
        job.source.wait_status("complete")
        job.source.wait_gone(90)
    finally:
        wrong.stop()
        site.agent.start()
    assert job.source.job == f"{bystander}.0", "the site has a job of the same number"
    said = (site.ce.place / "log/JobRouterLog").read_text()
    assert "reads another queue than the router's" in said
    assert job.source.job not in [
        link
        for submission in job.source.subjob()["submissions"]
        for link in submission["links"].values()
    ]
