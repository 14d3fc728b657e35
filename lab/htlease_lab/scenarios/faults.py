"""Scenarios of the access point: what runs a workflow is killed, and a whole workflow is held."""

from __future__ import annotations

import signal

from htlease_lab.scenarios.runner import Play
from htlease_lab.scenarios.staging_faults import ends_well

#: By which DAGMan is known, whatever the schedd calls it.
_LOCK_OPTION = "-Lockfile"


def crashing(play: Play) -> None:
    """Schedd, DAGMan and watcher are killed, one after the other, in the middle of a transfer."""
    workflow, pool = play.workflow, play.stage.pool
    play.begin()
    task = workflow.wait_task()
    play.say("SIGKILL of the schedd")
    pool.kill_schedd()
    _watched_again(play)
    play.say("SIGKILL of DAGMan")
    kill_dagman(play)
    _watched_again(play)
    if play.watcher == "job":
        play.say("SIGKILL of the watcher")
        workflow.kill_watcher()
        _watched_again(play)
    play.fact("task of the stage-in", task, workflow.record("stage-in")["external_id"])
    play.stage.service.control(paused=False)
    ends_well(play, tasks=2)
    play.fact("submissions", 2, play.tally()["submit"])


def kill_dagman(play: Play) -> None:
    """SIGKILL of the DAGMan that runs, if one does; the schedd starts it again."""
    for process in play.stage.pool.processes():
        if _LOCK_OPTION in process.argv:
            process.send(signal.SIGKILL)


def wait_schedd(play: Play) -> None:
    """Wait for a schedd that answers."""
    pool = play.stage.pool
    play.workflow.wait_for(
        lambda: pool.run(["condor_q"], check=False).returncode == 0, "a schedd that answers"
    )


def _watched_again(play: Play) -> None:
    wait_schedd(play)
    play.workflow.wait_looks(3)
    play.say("the transfer is watched again")


def holding(play: Play) -> None:
    """All of a workflow is held and released; the transfer ends meanwhile."""
    workflow, service = play.workflow, play.stage.service
    play.begin()
    task = workflow.wait_task()
    job = workflow.job_of("stage-in")
    play.say(workflow.htlease("dag", "hold", workflow.dag.name))
    workflow.wait_for(lambda: _running(play) == set(), "no job to run")
    service.control(paused=False)
    workflow.wait_for(
        lambda: service.control()["tasks"][task] == "SUCCEEDED", "the end of the task"
    )
    play.say("the transfer has ended; nothing has noticed")
    play.fact("jobs that run", set(), _running(play))
    play.say(workflow.htlease("dag", "release", workflow.dag.name))
    ends_well(play, tasks=2)
    play.fact("the watcher is the job that it was", job, workflow.job_of("stage-in"))


def _running(play: Play) -> set[str]:
    return {f"{ad['ClusterId']}.{ad['ProcId']}" for ad in play.stage.pool.jobs() if _runs(ad)}


def _runs(ad: dict[str, object]) -> bool:
    return ad["JobStatus"] == 2
