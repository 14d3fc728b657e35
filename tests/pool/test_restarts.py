"""A restarted job reclaims its own phase, whatever ended the start before it.

Each test breaks several jobs at once, one standing in each phase, to keep the pool busy.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from tests.pool.lab import PLAN, Lab, TestJob

PHASES = ("stage-in", "compute", "stage-out")
HELD, RELEASED, EXECUTING, RECONNECTED = 12, 13, 1, 23


def blocked_jobs(lab: Lab, name: str, pin: str | None = None) -> dict[str, TestJob]:
    """Submit one job for each phase and wait until its first attempt stands in that phase."""
    jobs = {
        phase: lab.submit(f"{name}-{phase}", {"block": {phase: [1]}}, pin=pin) for phase in PHASES
    }
    for phase, job in jobs.items():
        job.wait_saved(phase)
    return jobs


def check_reclaimed(job: TestJob, phase: str, attempts: int = 2) -> None:
    """Check that a restart in a phase cost no more than it had to."""
    document = job.wait_status("complete")
    ad = job.wait_gone()
    why = job.explain()
    assert ad["ExitCode"] == 0, why
    assert len(document["attempts"]) == attempts, why
    fences = [attempt["fence"] for attempt in document["attempts"]]
    assert fences == list(range(1, attempts + 1)), why
    assert all(attempt["end"] for attempt in document["attempts"]), "each end is explained\n" + why
    assert not job.lab.pool.events(job.log, HELD) or "hold" in job.key, why
    assert len(job.told("start", "register")) == 1, "done once, by the first attempt\n" + why
    assert len(job.told("end", "stage-out")) == 1, why
    assert job.told("end", phase)[-1]["attempt"] == attempts, why
    if phase == "compute":
        resumed = job.told("start", "compute")[-1]
        assert resumed["details"] == "compute of attempt 1", why
    if phase != "stage-in":
        assert len(job.told("start", "stage-in")) == attempts, "it was local to a sandbox\n" + why


Fault = Callable[[Lab, TestJob], None]


def hold_and_release(lab: Lab, job: TestJob) -> None:
    lab.pool.hold(job.job)
    lab.pool.wait_event(job.log, HELD)
    lab.pool.release(job.job)


FAULTS: dict[str, Fault] = {
    "vacate": lambda lab, job: lab.pool.vacate(job.job),
    "vacate-fast": lambda lab, job: lab.pool.vacate(job.job, fast=True),
    "hold-release": hold_and_release,
    "starter-killed": lambda lab, job: lab.pool.kill_starter(job.job),
    "shadow-killed": lambda lab, job: lab.pool.kill_shadow(job.job),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_restart_in_any_phase_reclaims_it(lab: Lab, fault: str) -> None:
    jobs = blocked_jobs(lab, fault)
    for job in jobs.values():
        FAULTS[fault](lab, job)
    for phase, job in jobs.items():
        check_reclaimed(job, phase)


def test_a_shadow_killed_right_after_the_start_repeats_the_counter(lab: Lab) -> None:
    job = lab.submit("shadow-at-once", {"block": {"stage-in": [1], "compute": [2]}})
    lab.pool.wait_event(job.log, EXECUTING)
    lab.pool.kill_shadow(job.job)
    lab.pool.wait_event(job.log, EXECUTING, count=2)
    job.wait_told("alive")
    acquired = job.grants()
    if job.told("alive", "stage-in") and not job.told("alive", "compute"):
        # The wrapper had not got the lease when the shadow died: the second start is attempt 1.
        lab.pool.kill_shadow(job.job)
    job.wait_told("alive", "compute")
    lab.pool.vacate(job.job)
    job.wait_status("complete")
    job.wait_gone()
    grants = job.grants()
    starts = [grant["evidence"]["job_starts"] for grant in grants]
    shadows = [grant["evidence"]["shadow_starts"] for grant in grants]
    assert starts[0] == starts[1] == 1, job.explain()
    assert shadows == sorted(set(shadows)), "the shadow's count tells them apart\n" + job.explain()
    assert grants[0] == acquired[0]
    assert len(job.told("start", "register")) == 1, job.explain()


def test_a_killed_startd_costs_a_restart(lab: Lab) -> None:
    jobs = blocked_jobs(lab, "startd", pin="ep2")
    lab.pool.kill_startd("ep2")
    for phase, job in jobs.items():
        check_reclaimed(job, phase)


@pytest.mark.parametrize("victims", ["schedd", "schedd-and-shadow"])
def test_a_killed_schedd_leaves_the_attempt_going_on(lab: Lab, victims: str) -> None:
    jobs = {
        phase: lab.submit(victims, {"block": {phase: [1]}, "block_seconds": 15}) for phase in PHASES
    }
    for phase, job in jobs.items():
        job.wait_told("alive", phase)
    shadows = [lab.pool.shadow(job.job) for job in jobs.values()]
    lab.pool.kill_schedd()
    if victims == "schedd-and-shadow":
        for shadow in shadows:
            lab.pool.kill(shadow)
    for job in jobs.values():
        document = job.wait_status("complete")
        assert job.wait_gone()["ExitCode"] == 0
        assert [attempt["fence"] for attempt in document["attempts"]] == [1], job.explain()
        assert lab.pool.events(job.log, RECONNECTED), job.explain()


def test_a_schedd_that_comes_back_after_the_job_lease_starts_the_job_again(lab: Lab) -> None:
    jobs = blocked_jobs(lab, "schedd-late")
    shadows = [lab.pool.shadow(job.job) for job in jobs.values()]
    master = lab.pool.daemon("condor_master", "ap")
    master.send(signal.SIGSTOP)  # it would start another schedd at once
    lab.pool.kill_schedd()
    for shadow in shadows:
        lab.pool.kill(shadow)
    lab.wait_for(
        lambda: not any(lab.pool.starters(job.job) for job in jobs.values()),
        "the starters to end with their job leases",
        120,
    )
    master.send(signal.SIGCONT)
    for phase, job in jobs.items():
        check_reclaimed(job, phase)


@pytest.mark.parametrize("how", ["graceful", "quick", "fast"])
def test_a_drained_machine_hands_its_jobs_over_in_any_phase(lab: Lab, how: str) -> None:
    jobs = blocked_jobs(lab, f"drain-{how}", pin="ep1")
    lab.pool.drain("ep1", how)
    for phase, job in jobs.items():
        check_reclaimed(job, phase)


@pytest.mark.parametrize("phase", PHASES)
def test_checkpoint_restarts_keep_attempt_and_lease(lab: Lab, phase: str) -> None:
    job = lab.submit(
        f"checkpoint-{phase}",
        {"checkpoints": {phase: 2}},
        lines=["checkpoint_exit_code = 85", "transfer_checkpoint_files = plan.toml"],
    )
    document = job.wait_status("complete")
    assert job.wait_gone()["ExitCode"] == 0
    assert [attempt["fence"] for attempt in document["attempts"]] == [1], job.explain()
    assert len(job.told("checkpoint", phase)) == 2
    assert len(job.told("end", phase)) == 1
    assert len(job.told("start", "register")) == 1
    assert len(job.told("start", "stage-in")) == (3 if phase == "stage-in" else 1), job.explain()


def test_an_eviction_after_checkpoints_is_a_newer_attempt(lab: Lab) -> None:
    """The sandbox counter starts again with a new sandbox; it must not make the restart unclear."""
    job = lab.submit(
        "checkpoint-then-evicted",
        {"checkpoints": {"stage-in": 2}, "block": {"compute": [1]}},
        pin="ep1",
        lines=["checkpoint_exit_code = 85", "transfer_checkpoint_files = plan.toml"],
    )
    job.wait_told("alive", "compute")
    lab.pool.vacate(job.job, fast=True)
    document = job.wait_status("complete")
    assert job.wait_gone()["ExitCode"] == 0
    assert len(document["attempts"]) == 2, job.explain()
    second = job.grants()[1]
    refusals = [event for event in job.history() if event["event"] == "attempt-refused"]
    assert second["why"] == "same-slot" and not refusals, job.explain()


def test_a_job_suspended_past_its_lease_goes_on_in_it(lab: Lab) -> None:
    job = lab.submit("suspended", {"block": {"compute": [1]}, "block_seconds": 12}, ttl_seconds=4)
    job.wait_told("alive", "compute")
    lab.pool.suspend(job.job)
    lab.pool.wait_status(job.job, "suspended")
    job.wait_status("lapsed")
    lab.pool.continue_(job.job)
    document = job.wait_status("complete")
    assert job.wait_gone()["ExitCode"] == 0
    assert [attempt["fence"] for attempt in document["attempts"]] == [1], job.explain()


def test_max_retries_after_a_failed_attempt(lab: Lab) -> None:
    job = lab.submit("retried", {"exit": {"compute": {"1": 3}}}, lines=["max_retries = 2"])
    job.wait_status("complete")  # by its last phase; its exit is told after that
    assert job.wait_gone()["ExitCode"] == 0
    first, second = job.subjob()["attempts"]
    assert (first["end"], first["exit_code"], second["exit_code"]) == ("exited", 3, 0)
    failed = [event for event in job.history() if event["event"] == "phase-failed"]
    assert [event["exit_code"] for event in failed] == [3]


def test_a_restart_between_exited_and_committed_is_an_ordinary_reclaim(lab: Lab) -> None:
    plan = PLAN.replace('restart = "once"\nexclusive = true', 'restart = "redo"')
    job = lab.submit("exited-again", plan=plan, lines=["on_exit_remove = NumJobStarts >= 2"])
    lab.pool.wait_event(job.log, EXECUTING, count=2)
    ad = job.wait_gone()
    document = job.wait_status("exited")
    assert ad["ExitCode"] == 0
    assert [attempt["end"] for attempt in document["attempts"]] == ["exited", "exited"]
    assert len(job.told("start", "register")) == 1
    assert len(job.told("end", "stage-out")) == 2, "its output had not come back"


@pytest.mark.parametrize("fault", ["hold-release", "starter-killed", "vacate"])
def test_local_universe_counts_starts_alike(lab: Lab, fault: str) -> None:
    job = lab.submit(
        f"local-{fault}",
        {"block": {"compute": [1]}},
        ttl_seconds=5,
        lines=["universe = local"],
        is_transferred=False,
    )
    job.wait_told("alive", "compute")
    FAULTS[fault](lab, job)
    document = job.wait_status("complete")
    assert job.wait_gone()["ExitCode"] == 0, job.explain()
    assert [attempt["fence"] for attempt in document["attempts"]] == [1, 2], job.explain()
    starts = [grant["evidence"]["job_starts"] for grant in job.grants()]
    assert starts == [1, 2], job.explain()
    assert len(job.told("start", "register")) == 1


@pytest.mark.parametrize("fault", ["vacate", "vacate-fast", "hold-release"])
def test_a_job_on_shared_files_without_transfer_reclaims_its_phase(lab: Lab, fault: str) -> None:
    job = lab.submit(
        f"shared-{fault}",
        {"block": {"compute": [1]}},
        ttl_seconds=5,
        is_transferred=False,
        is_on_shared_files=True,
        lines=[
            "should_transfer_files = NO",
            "requirements = TARGET.FileSystemDomain isnt undefined",
        ],
    )
    job.wait_saved("compute")
    FAULTS[fault](lab, job)
    check_reclaimed(job, "compute")


@pytest.mark.parametrize("fault", ["vacate-fast", "shadow-killed", "starter-killed"])
def test_after_a_hard_kill_the_lease_is_not_sat_out(lab: Lab, fault: str) -> None:
    """With proof the first request is granted, long before the lease would have ended."""
    job = lab.submit(f"hard-{fault}", {"block": {"compute": [1]}}, ttl_seconds=600, pin="ep1")
    job.wait_told("alive", "compute")
    broken_at = time.monotonic()
    FAULTS[fault](lab, job)
    job.wait_told("start", attempt=2)
    print(f"{fault}: second attempt at work {time.monotonic() - broken_at:.1f} s after the fault")
    second = job.grants()[1]
    assert second["why"] in ("same-slot", "abandoned"), job.explain()
    refusals = [event for event in job.history() if event["event"] == "attempt-refused"]
    if second["why"] == "same-slot":
        assert not refusals, job.explain()
    job.wait_status("complete")
