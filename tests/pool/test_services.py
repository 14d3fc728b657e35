"""A service's own executor moves its state machine under a lease, restarts included."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pool.lab import Lab

EXECUTOR = Path(__file__).with_name("payloads") / "cts_executor.sh"


@pytest.mark.parametrize("state", ["job_submitting", "job_submitted", "upload_submitted"])
def test_a_cts_executor_restarted_in_a_state_goes_on(lab: Lab, state: str) -> None:
    job = lab.submit(
        f"cts-{state}",
        arguments=f"--profile cts -- ./executor.sh {state}",
        files={"executor.sh": EXECUTOR.read_bytes()},
    )

    def entered() -> bool:
        return bool(job.subjob()["phase"] == state)

    lab.wait_for(lambda: job.is_known() and entered(), f"{job.key} to reach {state}", 60)
    lab.pool.vacate(job.job)
    document = job.wait_status("complete")
    assert job.wait_gone()["ExitCode"] == 0
    assert [attempt["fence"] for attempt in document["attempts"]] == [1, 2], job.explain()
    written = [path.name for path in job.directory.glob("attempt-*")]
    assert written == ["attempt-2-fence-2"]
    assert not lab.pool.events(job.log, 12), "never held"


def test_the_queue_shows_phase_and_attempt(lab: Lab) -> None:
    """Delayed chirp updates travel with the job's own; they are in its last ad at the latest."""
    job = lab.submit("chirped")
    job.wait_status("complete")
    ad = job.wait_gone()
    assert ad["ChirpHTLeasePhase"] == "stage-out", ad
    assert ad["ChirpHTLeaseAttempt"] == 1


def test_no_secret_is_in_the_ad_the_log_or_the_output(lab: Lab) -> None:
    job = lab.submit("secrets", {"block": {"compute": [1]}, "block_seconds": 3})
    workflow = job.key.split("/")[0]
    token = lab.token(workflow)
    job.wait_told("alive", "compute")
    seen = lab.pool.run(["condor_q", "-l", job.job]).stdout
    assert workflow in seen
    job.wait_status("complete")
    job.wait_gone()
    seen += lab.pool.run(["condor_history", "-l", job.job]).stdout
    for path in job.directory.iterdir():
        if path.name != "htlease.token":
            seen += path.read_text(errors="replace")
    seen += lab.server.log_text
    assert token not in seen
    assert ".htlease.json" not in [path.name for path in job.directory.iterdir()]
