"""Scenario `maintenance`: two weeks without lease server and pool, in seconds."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Collection, Mapping
from typing import Any

from htlease_lab.scenarios.runner import Play
from htlease_lab.scenarios.staging_faults import ends_well
from htlease_lab.scenarios.workflow import TTL_SECONDS

#: How often every lease could have run out meanwhile.
_LEASES = 1.5
#: From the announcement to the begin: enough for a restart of the server.
_AHEAD_SECONDS = 10
NODES = ("stage-in", "compute", "stage-out")


def maintaining(play: Play) -> None:
    """In an announced outage no lease runs out, and afterwards everything goes on."""
    workflow, stage = play.workflow, play.stage
    play.begin()
    task = workflow.wait_task()
    _announce(play)

    play.say("the lease server is down for longer than any lease; the watchers stay")
    stage.lease_server.stop(signal.SIGKILL)
    _sit_out(play)
    stage.lease_server.start()
    if play.watcher == "job":
        workflow.wait_looks(3)
        found = workflow.subjob("stage-in") or {}
        play.fact("fence of the watcher", 1, found.get("fence"))
        play.fact("its lease", "active", found.get("status"))
    # A short watcher that ended meanwhile could not say so: the next waits for the window's end.
    play.fact("watchers shut out by that", [], _shut_out(play))

    play.say("lease server and the whole pool are off for longer than any lease")
    stage.lease_server.stop(signal.SIGKILL)
    stage.pool.power_off()
    stage.service.control(paused=False)
    workflow.wait_for(
        lambda: stage.service.control()["tasks"][task] == "SUCCEEDED", "the end of the task"
    )
    play.say("the transfer service has gone on by itself")
    _sit_out(play)
    stage.lease_server.start()
    stage.pool.power_on()
    play.say("all is on again, and the window still open for longer than any lease")
    _sit_out(play)
    play.fact("leases taken over because they had run out", [], _run_out(play))
    play.say(workflow.htlease("maintenance", "end"))
    ends_well(play, tasks=2)
    play.fact("task of the stage-in", task, workflow.record("stage-in")["external_id"])
    play.fact("writes refused in the end", [], _shut_out(play))


def _announce(play: Play) -> None:
    """Have the window begin by itself, at a server that was restarted since it was announced."""
    workflow, server = play.workflow, play.stage.lease_server
    when = ("--from", f"{_AHEAD_SECONDS}s", "--until", "14d")
    play.say(workflow.htlease("maintenance", "announce", *when, "--reason", "new cooling"))
    announced = _windows(play)
    play.fact("windows open before the time", None, announced["open"])
    play.fact("what the next one is for", "new cooling", announced["next"]["reason"])
    server.stop(signal.SIGTERM)
    server.start()
    workflow.wait_for(lambda: _windows(play)["open"], "the window to begin")
    play.say("the window has begun, and nobody did anything")


def _windows(play: Play) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(play.workflow.htlease("maintenance", "status", "--json"))
    return shown


def _sit_out(play: Play) -> None:
    until = time.monotonic() + _LEASES * TTL_SECONDS
    play.workflow.wait_for(lambda: time.monotonic() > until, "the outage to pass")


def _run_out(play: Play) -> list[str]:
    """Return the nodes of which somebody was given the lease since the one before had run out."""
    return [
        node
        for node in NODES
        for event in play.workflow.history(node)
        if event["event"] == "lease-acquired" and event["why"] == "expired"
    ]


def _shut_out(play: Play) -> list[str]:
    """Return what anybody was refused for good: the sign of a fence that came too early.

    HTCondor writes a job's end into the log before its queue has it. Where the power goes in
    between, a local universe job runs again, beside the one that DAGMan has submitted after it.
    Whoever of the two comes second hears that all is done or, if it is the former, that it is
    superseded; both are right. Source: measured on 23.9.6 and 25.14.1.
    """
    again = _run_again_after_their_end(play)
    return [
        f"{node}: {event['code']}"
        for node in NODES
        for event in play.workflow.history(node)
        if event["event"] == "write-refused"
        or (event["event"] == "attempt-refused" and not _may_be_refused(event, again))
    ]


def _may_be_refused(event: Mapping[str, Any], again: Collection[str]) -> bool:
    if event["code"] == "superseded-attempt":
        job = str(event["attempt_id"]).split("#")[1]
        return job in again
    return bool(event["code"] == "lease-still-live" or event["why"] == "the subjob is complete")


def _run_again_after_their_end(play: Play) -> set[str]:
    """Return the jobs whose log has a start after their end."""
    ended, again = set(), set()
    for event in play.workflow.job_events():
        if event.event == "terminate":
            ended.add(event.job)
        elif event.event == "execute" and event.job in ended:
            again.add(event.job)
    return again
