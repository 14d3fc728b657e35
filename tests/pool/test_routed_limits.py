"""Each limit that a computing element sets on routed jobs, reached on a pool, and what it is called.

The sentences are those of HTCondor-CE's own configuration file and of HTCondor's policy templates;
only the times are shorter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.pool.lab import PROJECT, Lab, TestJob
from tests.pool.routing import Agent, RoutedJob, routed_by, submit_routed

from htlease.condor.hold_remove_reasons import reason_of
from htlease_lab.pool.network import EXECUTION_POINTS

_CE = PROJECT / "tests/data/htcondor-ce/01-ce-router-defaults.conf"
#: For each limit a job that is to reach it; never a copy, which at a CE is in another queue.
_SHORT = """
HOLD_CLAUSE_2 = (RoutedFromJobId is undefined && Limited =?= "idle" && JobStatus =?= 1 && \\
  time() - EnteredCurrentStatus > 3 && RoutedToJobId is null)
REMOVE_CLAUSE_1 = (RoutedFromJobId is undefined && Limited =?= "held" && JobStatus == 5 && \\
  time() - EnteredCurrentStatus > 3)
REMOVE_CLAUSE_2 = false
REMOVE_CLAUSE_3 = (RoutedFromJobId is undefined && Limited =?= "completed" && JobStatus == 4 && \\
  time() - EnteredCurrentStatus > 5)
REMOVE_CLAUSE_4 = (RoutedFromJobId is undefined && Limited =?= "walltime" && JobStatus == 2 && \\
  time() - JobCurrentStartDate > 5)
SYSTEM_PERIODIC_HOLD = $(HOLD_CLAUSE_2)
"""
_POLICY = """
use POLICY : HOLD_IF_MEMORY_EXCEEDED
use POLICY : HOLD_IF_DISK_EXCEEDED
STARTER_INITIAL_UPDATE_INTERVAL = 2
STARTER_UPDATE_INTERVAL = 3
POLLING_INTERVAL = 2
"""
_MEMORY = "#!/usr/bin/python3\nimport time\nheld = b'x' * (400 << 20)\ntime.sleep(300)\n"
_DISK = "#!/bin/sh\ndd if=/dev/zero of=large bs=1M count=200 2>/dev/null\nsleep 300\n"


def ce_policy() -> str:
    """Return the part of the CE's file that holds and removes jobs, with shorter times."""
    policy = _CE.read_text().partition("HOLD_CLAUSE_1 =")
    wanted = f"{policy[1]}{policy[2]}".partition("\nJOB_ROUTER_")[0]
    return f"ROUTED_JOB_MAX_TIME = 4320\n{wanted}\n{_SHORT}"


@pytest.fixture(scope="module")
def agent(lab: Lab) -> Iterator[Agent]:
    for ep in EXECUTION_POINTS:
        lab.pool.configure(ep, "limits", _POLICY)
    with routed_by(lab, ce_policy()) as agent:
        yield agent
    for ep in EXECUTION_POINTS:
        lab.pool.configure(ep, "limits", None)


def submit(lab: Lab, limit: str) -> RoutedJob:
    lines = [f'My.Limited = "{limit}"']
    if limit == "idle":
        lines.append('My.RouteTo = "nowhere"')
    if limit == "completed":
        lines.append("leave_in_queue = true")
        return submit_routed(lab, limit, lines=lines)
    hogs = {"memory": _MEMORY, "disk": _DISK}
    if limit in hogs:
        files = {"hog": hogs[limit].encode()}
        return submit_routed(lab, limit, lines=lines, files=files, arguments="-- ./hog")
    return submit_routed(lab, limit, {"block": {"compute": [1]}}, lines=lines)


def wait_hold(lab: Lab, source: TestJob) -> dict[str, Any]:
    """Wait until the server knows that a job is held, and return the hold."""
    hold: dict[str, Any] = lab.wait_for(
        lambda: source.subjob()["job_hold"], f"the hold of {source.key}", 30
    )
    return hold


def code(ad: dict[str, object], attribute: str) -> str:
    return reason_of(str(ad.get(attribute, ""))).code


def test_each_routed_limit_is_reached_and_has_its_name(lab: Lab, agent: Agent) -> None:
    limits = ("held", "idle", "completed", "walltime", "memory", "disk")
    jobs = {limit: submit(lab, limit) for limit in limits}
    jobs["held"].source.wait_told("alive", "compute")
    lab.pool.hold(jobs["held"].source.job)

    def outcome(limit: str) -> str | None:
        source = jobs[limit].source
        return source.subjob()["outcome"] if source.is_known() else None

    lab.wait_for(
        lambda: (
            [outcome(limit) for limit in ("held", "completed", "walltime")]
            == ["failed", "complete", "failed"]
        ),
        "the limits that remove jobs",
        180,
    )
    for limit, name in (("held", "held-too-long"), ("walltime", "walltime")):
        [closed] = lab.server.events(jobs[limit].source.key, "subjob-closed")
        assert closed["reason"].startswith(f"{name}: CE job removed by SYSTEM_PERIODIC_REMOVE")
    lab.wait_for(
        lambda: code(jobs["completed"].source_ad(), "RemoveReason") == "completed-long-ago",
        "the completed job to leave the queue",
        60,
    )
    assert outcome("completed") == "complete"

    lab.pool.wait_status(jobs["idle"].source.job, "held", 60)
    assert code(jobs["idle"].source_ad(), "HoldReason") == "no-route"

    for limit in ("memory", "disk"):
        source = jobs[limit].source
        lab.pool.wait_status(source.job, "held", 120)
        assert code(jobs[limit].source_ad(), "HoldReason") == f"{limit}-exceeded"
        hold = wait_hold(lab, source)
        assert reason_of(hold["reason"]).code == f"{limit}-exceeded", hold
        assert hold["by"] == "site-policy"
        assert outcome(limit) is None, "who raises the request may release it"
