"""Scenario `maintenance`: two weeks without lease server and pool, in seconds."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Collection, Mapping
from typing import Any

from htlease_lab.scenarios.runner import ScenarioRun
from htlease_lab.scenarios.staging_faults import ends_well
from htlease_lab.scenarios.workflow import TTL_SECONDS

#: How often every lease could have run out meanwhile.
_LEASES = 1.5
#: From the announcement to the begin: enough for a restart of the server.
_AHEAD_SECONDS = 10
NODES = ("stage-in", "compute", "stage-out")


def maintaining(run: ScenarioRun) -> None:
    """In an announced outage no lease runs out, and afterwards everything goes on."""
    workflow, environment = run.workflow, run.environment
    run.begin()
    task = workflow.wait_task()
    _announce(run)

    run.say("the lease server is down for longer than any lease; the watchers stay")
    environment.lease_server.stop(signal.SIGKILL)
    _sit_out(run)
    environment.lease_server.start()
    if run.watcher == "job":
        workflow.wait_looks(3)
        found = workflow.subjob("stage-in") or {}
        run.fact("fence of the watcher", 1, found.get("fence"))
        run.fact("its lease", "active", found.get("status"))
    # A short watcher that ended meanwhile could not say so: the next waits for the window's end.
    run.fact("watchers shut out by that", [], _shut_out(run))

    run.say("lease server and the whole pool are off for longer than any lease")
    environment.lease_server.stop(signal.SIGKILL)
    environment.pool.power_off()
    environment.service.control(paused=False)
    workflow.wait_for(
        lambda: environment.service.control()["tasks"][task] == "SUCCEEDED", "the end of the task"
    )
    run.say("the transfer service has gone on by itself")
    _sit_out(run)
    environment.lease_server.start()
    environment.pool.power_on()
    run.say("all is on again, and the window still open for longer than any lease")
    _sit_out(run)
    run.fact("leases taken over because they had run out", [], _run_out(run))
    run.say(workflow.htlease("maintenance", "end"))
    ends_well(run, tasks=2)
    run.fact("task of the stage-in", task, workflow.record("stage-in")["external_id"])
    run.fact("writes refused in the end", [], _shut_out(run))


def _announce(run: ScenarioRun) -> None:
    """Have the window begin by itself, at a server that was restarted since it was announced."""
    workflow, server = run.workflow, run.environment.lease_server
    when = ("--from", f"{_AHEAD_SECONDS}s", "--until", "14d")
    run.say(workflow.htlease("maintenance", "announce", *when, "--reason", "new cooling"))
    announced = _windows(run)
    run.fact("windows open before the time", None, announced["open"])
    run.fact("what the next one is for", "new cooling", announced["next"]["reason"])
    server.stop(signal.SIGTERM)
    server.start()
    workflow.wait_for(lambda: _windows(run)["open"], "the window to begin")
    run.say("the window has begun, and nobody did anything")


def _windows(run: ScenarioRun) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(run.workflow.htlease("maintenance", "status", "--json"))
    return shown


def _sit_out(run: ScenarioRun) -> None:
    until = time.monotonic() + _LEASES * TTL_SECONDS
    run.workflow.wait_for(lambda: time.monotonic() > until, "the outage to pass")


def _run_out(run: ScenarioRun) -> list[str]:
    """Return the nodes of which somebody was given the lease since the one before had run out."""
    return [
        node
        for node in NODES
        for event in run.workflow.history(node)
        if event["event"] == "lease-acquired" and event["why"] == "expired"
    ]


def _shut_out(run: ScenarioRun) -> list[str]:
    """Return what anybody was refused for good: the sign of a fence that came too early.

    HTCondor writes a job's end into the log before its queue has it. Where the power goes in
    between, a local universe job runs again, beside the one that DAGMan has submitted after it.
    Whoever of the two comes second hears that all is done or, if it is the former, that it is
    superseded; both are right. Source: measured on 23.9.6 and 25.14.1.
    """
    again = _run_again_after_their_end(run)
    return [
        f"{node}: {event['code']}"
        for node in NODES
        for event in run.workflow.history(node)
        if event["event"] == "write-refused"
        or (event["event"] == "attempt-refused" and not _may_be_refused(event, again))
    ]


def _may_be_refused(event: Mapping[str, Any], again: Collection[str]) -> bool:
    if event["code"] == "superseded-attempt":
        job = str(event["attempt_id"]).split("#")[1]
        return job in again
    return bool(event["code"] == "lease-still-live" or event["why"] == "the subjob is complete")


def _run_again_after_their_end(run: ScenarioRun) -> set[str]:
    """Return the jobs whose log has a start after their end."""
    ended, again = set(), set()
    for event in run.workflow.job_events():
        if event.event == "terminate":
            ended.add(event.job)
        elif event.event == "execute" and event.job in ended:
            again.add(event.job)
    return again
