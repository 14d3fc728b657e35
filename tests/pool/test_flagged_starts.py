"""Flags hold back jobs that begin their phase before anybody could refuse it: by the start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.pool.agent import AgentProcess, install_shadow_hook
from tests.pool.agent_jobs import closed, history, submit_program, wait_granted
from tests.pool.hooked import HookedSite, wait_fence
from tests.pool.lab import Lab

HELD, TRANSFER = 12, 40
#: Of a hook of the starter, and of the shadow.
REFUSED, REFUSED_BY_SHADOW = 21, 7


@pytest.fixture
def site(lab: Lab) -> Iterator[HookedSite]:
    site = HookedSite(lab)
    site.configure()
    yield site
    site.remove()


def need(lab: Lab, workflow: str, flag: str) -> None:
    """Let the one phase of a workflow's jobs need a flag."""
    plan = {"phases": [{"name": "run", "needs": [flag]}]}
    body = {"request_id": workflow, "plan": plan}
    lab.server.ask("PUT", f"workflows/{workflow}", body)


def put(lab: Lab, flag: str, is_up: bool) -> None:
    lab.server.ask("PUT", f"flags/{flag}", {"is_up": is_up, "reason": "tape robot"})


def test_a_bare_job_waits_as_idle_and_runs_when_the_flag_is_up(site: HookedSite) -> None:
    lab, key = site.lab, "flagged-bare/s"
    need(lab, "flagged-bare", "hpss-bare")
    put(lab, "hpss-bare", False)
    job = site.submit("flagged", script="echo ran", key=key, inputs=["input.txt"])
    refused = lab.pool.wait_event(job.log, REFUSED, count=2)
    assert "flagged-bare/s: run needs hpss-bare, which is down: tape robot" in refused.text
    assert "(reported status 604)" in refused.text
    assert history(lab, key) == [], "nothing is recorded of a start that did nothing"
    assert not lab.pool.events(job.log, TRANSFER), "no input was transferred"
    put(lab, "hpss-bare", True)
    assert job.wait_gone(90)["ExitCode"] == 0
    assert (job.directory / "out").read_text() == "ran\n"
    assert [grant["fence"] for grant in job.grants()] == [1]
    assert not lab.pool.events(job.log, HELD)


def test_a_flag_stops_nothing_that_has_begun_and_holds_back_its_next_start(
    site: HookedSite,
) -> None:
    lab, key = site.lab, "flagged-runs/s"
    need(lab, "flagged-runs", "hpss-runs")
    job = site.submit("flagged-runs", key=key)
    wait_granted(lab, key)
    wait_fence(job, 1)
    put(lab, "hpss-runs", False)

    def left() -> float:
        seconds: float = job.subjob()["expires_in_seconds"]
        return seconds

    low = lab.wait_for(lambda: min(left(), 9.5) % 9.5, "the lease to run down", 30)
    lab.wait_for(lambda: left() > low + 1, "a renewal while the flag is down", 30)
    lab.pool.vacate(job.job)
    refused = lab.pool.wait_event(job.log, REFUSED)
    assert "(reported status 604)" in refused.text
    assert [grant["fence"] for grant in job.grants()] == [1]
    put(lab, "hpss-runs", True)
    wait_fence(job, 2)
    lab.pool.remove(job.job)


def test_a_job_without_network_waits_as_idle_and_runs_when_the_flag_is_up(
    lab: Lab, agent: AgentProcess
) -> None:
    need(lab, "flagged-chirp", "hpss-chirp")
    put(lab, "hpss-chirp", False)
    install_shadow_hook(lab, agent, wait_flag="1")
    lines = ('My.HTLeaseKey = "flagged-chirp/s"', "+HTLeaseNoPath = true")
    program = "#!/bin/sh\necho ran\n"
    _, directory = submit_program(lab, "flagged-chirp", program, "", *lines)
    refused = lab.pool.wait_event(directory / "log", REFUSED_BY_SHADOW)
    assert "(reported status 604)" in refused.text
    assert "run needs hpss-chirp, which is down: tape robot" in refused.text
    assert history(lab, "flagged-chirp/s") == []
    put(lab, "hpss-chirp", True)
    closed(lab, "flagged-chirp/s", "complete")
    assert (directory / "out").read_text() == "ran\n"
    assert not lab.pool.events(directory / "log", HELD)
