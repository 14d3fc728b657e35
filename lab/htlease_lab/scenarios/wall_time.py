"""Scenario `walltime`: a job has had its time, and its plan says what that comes to."""

from __future__ import annotations

from htlease_lab.scenarios.runner import Play
from htlease_lab.scenarios.wrapped_job import Computing


def next_attempt(play: Play) -> None:
    """The next attempt goes on from what the payload saved in time; twice, then it is done."""
    job = Computing(play, "next-attempt", parts=3)
    job.submit()
    job.wait_status("completed")
    play.fact("parts, and the attempt that did each", _each_once(3), job.parts_done())
    play.fact("how attempts ended", ["walltime", "walltime", None], job.reasons())
    _is_complete(play, job)


def holding(play: Play) -> None:
    """The job is held with the reason; released, it goes on."""
    job = Computing(play, "hold", parts=2)
    job.submit()
    job.wait_status("held")
    hold = job.ad()
    play.say(f"HoldReason: {hold['HoldReason']}")
    play.fact("the hold says why", True, hold["HoldReason"].startswith("walltime: "))
    play.fact("how the attempt ended", ["walltime"], job.reasons())
    play.fact("outcome", None, job.subjob()["outcome"])
    play.say("somebody releases it")
    play.stage.pool.release(job.id)
    job.wait_status("completed")
    play.fact("parts, and the attempt that did each", _each_once(2), job.parts_done())
    _is_complete(play, job)


def failing(play: Play) -> None:
    """The subjob is closed as failed, with the reason; the job leaves the queue."""
    job = Computing(play, "fail", parts=2)
    job.submit()
    job.wait_status("completed")
    subjob = job.subjob()
    play.fact("exit code of the job", 79, job.ad()["ExitCode"])
    play.fact("outcome", "failed", subjob["outcome"])
    play.fact("how the attempt ended", ["walltime"], job.reasons())


def limited_by_htcondor(play: Play) -> None:
    """allowed_execute_duration holds the job, which is released and goes on."""
    job = Computing(play, "next-attempt", parts=2, limit="allowed_execute_duration = 8")
    job.submit()
    job.wait_status("completed")
    play.fact("holds", ["The job exceeded allowed execute duration of 00:08"], job.holds())
    play.fact("parts, and the attempt that did each", _each_once(2), job.parts_done())
    _is_complete(play, job)


def _is_complete(play: Play, job: Computing) -> None:
    """Do what the agent or a POST script does, where there is one."""
    play.say(job.commit())
    play.fact("outcome", "complete", job.subjob()["outcome"])


def _each_once(parts: int) -> list[str]:
    return [f"part {number} by attempt {number}" for number in range(1, parts + 1)]
