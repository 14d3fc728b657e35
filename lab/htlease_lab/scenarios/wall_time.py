"""Scenario `walltime`: a job has had its time, and its plan says what that comes to."""

from __future__ import annotations

from htlease_lab.scenarios.runner import ScenarioRun
from htlease_lab.scenarios.wrapped_job import WrappedJob


def next_attempt(run: ScenarioRun) -> None:
    """The next attempt goes on from what the payload saved in time; twice, then it is done."""
    job = WrappedJob(run, "next-attempt", parts=3)
    job.submit()
    job.wait_status("completed")
    run.fact("parts, and the attempt that did each", _each_once(3), job.parts_done())
    run.fact("how attempts ended", ["walltime", "walltime", None], job.reasons())
    _is_complete(run, job)


def holding(run: ScenarioRun) -> None:
    """The job is held with the reason; released, it goes on."""
    job = WrappedJob(run, "hold", parts=2)
    job.submit()
    job.wait_status("held")
    hold = job.ad()
    run.say(f"HoldReason: {hold['HoldReason']}")
    run.fact("the hold says why", True, hold["HoldReason"].startswith("walltime: "))
    run.fact("how the attempt ended", ["walltime"], job.reasons())
    run.fact("outcome", None, job.subjob()["outcome"])
    run.say("somebody releases it")
    run.environment.pool.release(job.id)
    job.wait_status("completed")
    run.fact("parts, and the attempt that did each", _each_once(2), job.parts_done())
    _is_complete(run, job)


def failing(run: ScenarioRun) -> None:
    """The subjob is closed as failed, with the reason; the job leaves the queue."""
    job = WrappedJob(run, "fail", parts=2)
    job.submit()
    job.wait_status("completed")
    subjob = job.subjob()
    run.fact("exit code of the job", 79, job.ad()["ExitCode"])
    run.fact("outcome", "failed", subjob["outcome"])
    run.fact("how the attempt ended", ["walltime"], job.reasons())


def limited_by_htcondor(run: ScenarioRun) -> None:
    """allowed_execute_duration holds the job, which is released and goes on."""
    job = WrappedJob(run, "next-attempt", parts=2, limit="allowed_execute_duration = 8")
    job.submit()
    job.wait_status("completed")
    run.fact("holds", ["The job exceeded allowed execute duration of 00:08"], job.holds())
    run.fact("parts, and the attempt that did each", _each_once(2), job.parts_done())
    _is_complete(run, job)


def _is_complete(run: ScenarioRun, job: WrappedJob) -> None:
    """Do what the agent or a POST script does, where there is one."""
    run.say(job.commit())
    run.fact("outcome", "complete", job.subjob()["outcome"])


def _each_once(parts: int) -> list[str]:
    return [f"part {number} by attempt {number}" for number in range(1, parts + 1)]
