"""`htlease agent` on a real pool: how jobs ended that nobody else could report."""

from __future__ import annotations

import signal
import time

from tests.pool.agent import AgentProcess
from tests.pool.agent_jobs import BARE, closed, names_of, submit_program, wait_granted
from tests.pool.lab import Lab


def test_a_bare_job_that_ended_well_is_complete(lab: Lab, agent: AgentProcess) -> None:
    submit_program(lab, "end-well", BARE, "1 0", 'My.HTLeaseKey = "ends/well"')
    lab.pool.wait_event(lab.pool.work_dir / "end-well/log", 5)
    event = closed(lab, "ends/well", "complete")
    assert "exit code 0" in event["reason"]
    exited = lab.server.events("ends/well", "attempt-exited")
    assert [end["exit_code"] for end in exited] == [0]
    assert lab.server.subjob("ends/well")["phases"][0]["completed_at"]


def test_a_failed_job_is_settled_with_its_exit_code_and_opens_again(
    lab: Lab, agent: AgentProcess
) -> None:
    line = 'My.HTLeaseKey = "ends/badly"'
    submit_program(lab, "end-badly", BARE, "0 3", line)
    event = closed(lab, "ends/badly", "failed")
    assert "exit code 3" in event["reason"]
    submit_program(lab, "end-badly-again", BARE, "0 0", line)
    lab.wait_for(
        lambda: lab.server.subjob("ends/badly")["outcome"] == "complete", "the second job", 60
    )


def test_a_job_that_is_run_again_by_htcondor_is_not_settled(lab: Lab, agent: AgentProcess) -> None:
    """`max_retries` keeps the job in the queue; only its last end counts."""
    program = BARE.replace(
        "sys.exit(int(sys.argv[2]))", "sys.exit(body['evidence']['job_starts'] < 2)"
    )
    line = 'My.HTLeaseKey = "ends/retried"'
    submit_program(lab, "end-retried", program, "3 0", line, "max_retries = 3")
    closed(lab, "ends/retried", "complete")
    assert names_of(lab, "ends/retried").count("subjob-closed") == 1


def test_phases_that_nobody_completed_make_a_good_exit_a_failure(
    lab: Lab, agent: AgentProcess
) -> None:
    submit_program(lab, "end-phases", BARE, "0 0 stage compute", 'My.HTLeaseKey = "ends/phases"')
    event = closed(lab, "ends/phases", "failed")
    assert "not complete: stage, compute" in event["reason"]


def test_a_removed_job_is_cancelled_with_the_reason(lab: Lab, agent: AgentProcess) -> None:
    job, directory = submit_program(lab, "end-rm", BARE, "60 0", 'My.HTLeaseKey = "ends/rm"')
    lab.pool.wait_event(directory / "log", 1)
    wait_granted(lab, "ends/rm")
    lab.pool.hold(job)
    lab.pool.wait_status(job, "held")
    time.sleep(3)  # several looks at the queue
    assert lab.server.subjob("ends/rm")["outcome"] is None
    lab.pool.run(["condor_rm", job, "-reason", "not needed"])
    event = closed(lab, "ends/rm", "cancelled")
    assert event["reason"].startswith("removed-by-user: not needed")


def test_a_removal_by_the_sites_policy_is_no_error_of_the_job(
    lab: Lab, agent: AgentProcess
) -> None:
    """The sentence of HTCondor-CE's default policy."""
    lab.pool.configure(
        "ap",
        "agent-policy",
        """
SYSTEM_PERIODIC_REMOVE = WantsPolicy =?= true && time() - JobCurrentStartDate > 6
SYSTEM_PERIODIC_REMOVE_REASON = strcat("CE job removed by SYSTEM_PERIODIC_REMOVE due to ", "disabled job retries")
""",
    )
    try:
        lines = ('My.HTLeaseKey = "ends/policy"', "+WantsPolicy = true")
        submit_program(lab, "end-policy", BARE, "60 0", *lines)
        wait_granted(lab, "ends/policy")
        event = closed(lab, "ends/policy", "failed")
        assert event["reason"].startswith("removed-by-policy: ")
    finally:
        lab.pool.configure("ap", "agent-policy", None)


def test_ends_are_reported_after_a_crash_and_while_nobody_looked(
    lab: Lab, agent: AgentProcess
) -> None:
    _, directory = submit_program(lab, "end-crash", BARE, "6 0", 'My.HTLeaseKey = "ends/crash"')
    lab.pool.wait_event(directory / "log", 1)
    wait_granted(lab, "ends/crash")
    agent.stop(signal.SIGKILL)
    lab.pool.wait_event(directory / "log", 5)
    lab.server.stop()
    agent.start()
    try:
        lab.wait_for(lambda: "ends of jobs wait" in agent.log.read_text(), "a failed look", 30)
    finally:
        lab.server.start()
    closed(lab, "ends/crash", "complete")
    assert names_of(lab, "ends/crash").count("subjob-closed") == 1
