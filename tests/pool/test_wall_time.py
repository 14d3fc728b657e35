"""HTCondor's own limits on run time: the agent reads in the queue what the job cannot know.

What the wrapper does by itself and what `htlease submit` adds: the scenario `walltime`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.pool.agent import AgentProcess
from tests.pool.dag import Dag
from tests.pool.lab import Lab, TestJob

HELD, WALL_TIME = 12, "walltime: The job exceeded allowed execute duration of 00:06"
PLAN = """
{policy}
[[phase]]
name = "compute"
run = ["sleep", "600"]
restart = "resume"
"""


@pytest.fixture(scope="module")
def agent(lab: Lab) -> Iterator[AgentProcess]:
    """An agent that watches the queue; jobs bring their tokens themselves."""
    agent = AgentProcess(lab, "--poll", "1")
    agent.start()
    yield agent
    agent.stop()


def test_a_dags_hold_script_puts_the_reason_on_record(lab: Lab) -> None:
    """Without an agent; the next start goes on, and the node ends well."""
    block = {"block": {"compute": [1]}, "block_seconds": 600}
    dag = Dag(lab, "limit-dag", ["JOB A job.sub"], behaviour=block)
    text = (dag.directory / "job.sub").read_text()
    # What was released before DAGMan has read of the hold is no longer held for the script.
    release = "HoldReasonCode == 47 && time() - EnteredCurrentStatus > 8"
    limit = f"allowed_execute_duration = 6\nperiodic_release = {release}\n"
    # 23.9 never ends a job by that limit that is to bring nothing back.
    dag.write("job.sub", text.replace('transfer_output_files = ""\n', limit))
    dag.submit()
    assert dag.wait() == 0, dag.explain()
    attempts = lab.server.subjob(dag.key("A"))["attempts"]
    of_job = [attempt for attempt in attempts if attempt["kind"] == "job"]
    assert [attempt["reason"] for attempt in of_job] == [WALL_TIME, None], dag.explain()
    assert [attempt["attempt_number"] for attempt in of_job] == [1, 2]


def limited(lab: Lab, name: str, policy: str, *lines: str) -> TestJob:
    """Submit a job that never ends, under a limit of HTCondor's, and wait for its hold."""
    limit = "allowed_execute_duration = 6"
    job = lab.submit(name, plan=PLAN.format(policy=policy), lines=(limit, *lines))
    # The agent knows a job by its key alone.
    lab.pool.run(["condor_qedit", job.job, "HTLeaseKey", f'"{job.key}"'])
    lab.pool.wait_event(job.log, HELD)
    return job


def ends(job: TestJob) -> list[dict[str, Any]]:
    """Wait until the first attempt is explained, and return all."""

    def explained() -> list[dict[str, Any]]:
        attempts: list[dict[str, Any]] = job.subjob()["attempts"]
        return attempts if attempts[0]["reason"] == WALL_TIME else []

    found: list[dict[str, Any]] = job.lab.wait_for(explained, "the reason of the end", 60)
    return found


def test_a_limit_that_held_the_job_is_the_reason_of_the_attempts_end(
    lab: Lab, agent: AgentProcess
) -> None:
    job = limited(lab, "limit-hold", 'on_wall_time = "hold"')
    (attempt,) = ends(job)
    assert attempt["end"] == "abandoned"
    assert job.subjob()["outcome"] is None
    lab.pool.release(job.job)
    lab.pool.wait_event(job.log, HELD, count=2)

    def reasons() -> list[str]:
        return [attempt["reason"] for attempt in job.subjob()["attempts"]]

    lab.wait_for(lambda: reasons() == [WALL_TIME] * 2, "the reason of the second", 60)
    lab.pool.remove(job.job)


def test_a_plan_that_calls_it_a_failure_closes_the_subjob(lab: Lab, agent: AgentProcess) -> None:
    job = limited(lab, "limit-fail", 'on_wall_time = "fail"')
    document = job.wait_status("failed")
    assert [attempt["reason"] for attempt in document["attempts"]] == [WALL_TIME]
    (closed,) = [event for event in job.history() if event["event"] == "subjob-closed"]
    assert (closed["by"], closed["reason"]) == ("walltime", WALL_TIME)
    lab.pool.remove(job.job)


def test_a_removal_for_the_same_reason_is_a_failure_with_that_reason(
    lab: Lab, agent: AgentProcess
) -> None:
    line = "periodic_remove = JobStatus == 5 && (HoldReasonCode == 46 || HoldReasonCode == 47)"
    job = limited(lab, "limit-remove", "", line)
    document = job.wait_status("failed")
    assert document["attempts"][0]["reason"].startswith("walltime: ")
    (closed,) = [event for event in job.history() if event["event"] == "subjob-closed"]
    assert closed["reason"].startswith("walltime: The job attribute PeriodicRemove expression")
