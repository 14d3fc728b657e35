"""Scenarios of the access point: what runs a workflow is killed, and a whole workflow is held."""

from __future__ import annotations

import signal

from htlease_lab.scenarios.runner import ScenarioRun
from htlease_lab.scenarios.staging_faults import ends_well

#: By which DAGMan is known, whatever the schedd calls it.
_LOCK_OPTION = "-Lockfile"


def crashing(run: ScenarioRun) -> None:
    """Schedd, DAGMan and watcher are killed, one after the other, in the middle of a transfer."""
    workflow, pool = run.workflow, run.environment.pool
    run.begin()
    task = workflow.wait_task()
    run.say("SIGKILL of the schedd")
    pool.kill_schedd()
    _watched_again(run)
    run.say("SIGKILL of DAGMan")
    kill_dagman(run)
    _watched_again(run)
    if run.watcher == "job":
        run.say("SIGKILL of the watcher")
        workflow.kill_watcher()
        _watched_again(run)
    run.fact("task of the stage-in", task, workflow.record("stage-in")["external_id"])
    run.environment.service.control(paused=False)
    ends_well(run, tasks=2)
    run.fact("submissions", 2, run.tally()["submit"])


def kill_dagman(run: ScenarioRun) -> None:
    """SIGKILL of the DAGMan that runs, if one does; the schedd starts it again."""
    for process in run.environment.pool.processes():
        if _LOCK_OPTION in process.argv:
            process.send(signal.SIGKILL)


def wait_schedd(run: ScenarioRun) -> None:
    """Wait for a schedd that answers."""
    pool = run.environment.pool
    run.workflow.wait_for(
        lambda: pool.run(["condor_q"], check=False).returncode == 0, "a schedd that answers"
    )


def _watched_again(run: ScenarioRun) -> None:
    wait_schedd(run)
    run.workflow.wait_looks(3)
    run.say("the transfer is watched again")


def holding(run: ScenarioRun) -> None:
    """All of a workflow is held and released; the transfer ends meanwhile."""
    workflow, service = run.workflow, run.environment.service
    run.begin()
    task = workflow.wait_task()
    job = workflow.job_of("stage-in")
    run.say(workflow.htlease("dag", "hold", workflow.dag.name))
    workflow.wait_for(lambda: _running(run) == set(), "no job to run")
    service.control(paused=False)
    workflow.wait_for(
        lambda: service.control()["tasks"][task] == "SUCCEEDED", "the end of the task"
    )
    run.say("the transfer has ended; nothing has noticed")
    run.fact("jobs that run", set(), _running(run))
    run.say(workflow.htlease("dag", "release", workflow.dag.name))
    ends_well(run, tasks=2)
    run.fact("the watcher is the job that it was", job, workflow.job_of("stage-in"))


def _running(run: ScenarioRun) -> set[str]:
    return {f"{ad['ClusterId']}.{ad['ProcId']}" for ad in run.environment.pool.jobs() if _runs(ad)}


def _runs(ad: dict[str, object]) -> bool:
    return ad["JobStatus"] == 2
