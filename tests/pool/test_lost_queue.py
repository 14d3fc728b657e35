"""A schedd that has lost its job queue: it answers, without an error, and nothing is made of that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pool.agent import AgentProcess
from tests.pool.lab import Lab, write_for_job


@pytest.fixture
def agent(lab: Lab) -> Iterator[AgentProcess]:
    """An agent that watches and gives no job anything; the numbers of jobs begin at 1."""
    lose_queue(lab)
    agent = AgentProcess(lab, "--poll", "1").beside("lost-queue")
    agent.start()
    yield agent
    agent.stop()


def submit(lab: Lab, directory: Path, key: str, seconds: int) -> str:
    """Submit a job that sleeps, to whom a start of it is granted the lease; return its ID."""
    write_for_job(directory / "job.sh", f"#!/bin/sh\nsleep {seconds}\n".encode(), 0o755)
    text = f"""
executable = job.sh
should_transfer_files = YES
request_memory = 32
request_disk = 1
job_lease_duration = 60
log = log
My.HTLeaseKey = "{key}"
queue
"""
    job = f"{lab.pool.submit(text, cwd=directory)}.0"
    lab.server.command(
        key,
        "acquire",
        nonce="f" * 16,
        global_job_id=str(lab.pool.job_ad(job)["GlobalJobId"]),
        evidence={"job_starts": 1, "shadow_starts": 1},
        ttl_seconds=3600,
    )
    return job


def lose_queue(lab: Lab) -> None:
    """Stop the schedd, take its job queue away, and start it again."""
    pool = lab.pool
    pool.run(["condor_off", "-fast", "-daemon", "schedd"], as_root=True)
    pool.wait_for(
        lambda: not any(process.program == "condor_schedd" for process in pool.processes()),
        "the schedd to stop",
        60,
    )
    spool = pool.directory / "ap/spool"
    for file in spool.glob("job_queue.log*"):
        file.unlink()
    pool.run(["condor_on", "-daemon", "schedd"], as_root=True)
    pool.wait_for(
        lambda: pool.run(["condor_q"], check=False).returncode == 0, "a schedd that answers", 60
    )


def test_what_became_of_jobs_is_not_told_by_a_schedd_that_lost_them(
    lab: Lab, agent: AgentProcess
) -> None:
    pool, server = lab.pool, lab.server
    directory = pool.job_directory("lost-queue")
    lost, known = "lost-queue/lost", "lost-queue/known"
    job = submit(lab, directory, lost, 3000)
    pool.wait_event(directory / "log", 1)
    lose_queue(lab)
    lab.wait_for(lambda: "JobQueueBirthdate" in agent.log.read_text(), "the agent to say it", 60)
    assert pool.jobs() == []

    told = agent.python("-m", "htlease_cli.cli", "dag", "reconcile", "lost-queue")
    assert "has lost the job queue that it was in; its lease runs out" in " ".join(told.split())

    assert submit(lab, directory, known, 1) == job, "the numbers begin again"
    lab.wait_for(lambda: server.subjob(known)["status"] != "active", "the end of what is known", 90)
    agent.python("-m", "htlease_cli.cli", "dag", "reconcile", "lost-queue")
    assert server.subjob(lost)["status"] == "active"
    assert not server.events(lost, "attempt-exited", "job-ended", "job-removed")
