"""Scenario `maintenance`: two weeks without lease server and pool, in seconds."""

from __future__ import annotations

import signal
import time

from htlease_admin.scenarios.plays import ends_well
from htlease_admin.scenarios.runner import Play
from htlease_admin.scenarios.workflow import TTL_SECONDS

#: How often every lease could have run out meanwhile.
_LEASES = 1.5
NODES = ("stage-in", "compute", "stage-out")


def maintaining(play: Play) -> None:
    """In an announced outage no lease runs out, and afterwards everything goes on."""
    workflow, stage = play.workflow, play.stage
    play.begin()
    task = workflow.wait_task()
    play.say(workflow.htlease("maintenance", "start", "--until", "14d", "--reason", "new cooling"))

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
    """Return what anybody was refused for good: the sign of a fence that came too early."""
    refused = []
    for node in NODES:
        for event in play.workflow.history(node):
            if event["event"] in ("write-refused", "attempt-refused"):
                refused.append(f"{node}: {event['code']}")
    return [text for text in refused if not text.endswith("lease-still-live")]
