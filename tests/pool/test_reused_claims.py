"""One claim that serves job after job, and attempts that are suspended while a rival comes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.pool.hooked import HookedSite, wait_fence
from tests.pool.lab import PLAN, Lab, TestJob

#: Says what it was given; how it ends is its argument.
SHOW = """
test -e "$HTLEASE_DETAILS" && echo "details of another"
echo "attempt $HTLEASE_ATTEMPT_NUMBER fence $HTLEASE_FENCE of $HTLEASE_KEY"
echo mine > "$HTLEASE_DETAILS.new" && mv "$HTLEASE_DETAILS.new" "$HTLEASE_DETAILS"
"""
#: One at a time on one machine, which the schedd then has one claim for.
WHOLE_MACHINE = "request_cpus = 8"
ENDS = {"well": "exit 0", "badly": "exit 4", "kills-its-wrapper": "kill -9 $PPID", "late": "exit 6"}


@pytest.fixture(scope="module")
def site(lab: Lab) -> Iterator[HookedSite]:
    site = HookedSite(lab)
    yield site
    site.remove()


def test_jobs_that_follow_each_other_in_one_claim_share_nothing(lab: Lab, site: HookedSite) -> None:
    site.configure(HTLEASE_WRAP_JOBS="True")
    machine = f'requirements = Machine == "{lab.pool.ep_host("ep1")}"'
    jobs = {
        name: site.submit(name, WHOLE_MACHINE, machine, "max_retries = 0", script=SHOW + end)
        for name, end in ENDS.items()
    }
    ads = {name: job.wait_gone(180) for name, job in jobs.items()}
    claims = {ad["LastPublicClaimId"] for ad in ads.values()}
    assert len(claims) == 1, "else this tests nothing"
    for name, job in jobs.items():
        said = (job.directory / "out").read_text().splitlines()
        assert said == [f"attempt 1 fence 1 of {job.key}"], job.explain()
        assert [grant["fence"] for grant in job.grants()] == [1], job.explain()
        (attempt,) = job.subjob()["attempts"]
        if name == "kills-its-wrapper":
            assert ads[name]["ExitSignal"] == 9
        else:
            code = int(ENDS[name].split()[1])
            assert (ads[name]["ExitCode"], attempt["exit_code"]) == (code, code), job.explain()


def suspend(job: TestJob) -> None:
    pool = job.lab.pool
    pool.suspend(job.job)
    pool.wait_event(job.log, 10)


def test_a_suspended_attempt_that_was_overtaken_writes_nothing_when_it_goes_on(lab: Lab) -> None:
    job = lab.submit("overtaken", {"block": {"compute": [1]}}, ttl_seconds=6)
    job.wait_saved("compute")
    suspend(job)
    token = lab.token(job.key.split("/")[0]).encode()
    rival = lab.submit(
        "rival",
        plan=PLAN,
        ttl_seconds=6,
        arguments=f"--plan plan.toml --key {job.key}",
        files={"htlease.token": token},
    )
    assert rival.wait_gone(120)["ExitCode"] == 0, rival.explain()
    assert [grant["why"] for grant in job.grants()] == ["first", "expired"]
    before = job.subjob()
    lab.pool.continue_(job.job)
    assert job.wait_gone(90)["ExitCode"] == 76, job.explain()
    assert job.subjob()["phases"] == before["phases"]
    assert not [
        note for note in job.told("end") if note["fence"] == 1 and note["phase"] == "compute"
    ]


def test_a_suspended_job_of_the_hooks_gives_way_to_a_later_submission(
    lab: Lab, site: HookedSite
) -> None:
    """The hooks of a suspended job go on renewing its lease, until another asks for it."""
    site.configure()
    job = site.submit("suspended")
    wait_fence(job, 1)
    suspend(job)
    rival = site.submit("later", key=job.key, script="exit 3")
    assert rival.wait_gone(150)["ExitCode"] == 3, rival.explain()
    ad = job.wait_gone(60)
    assert ad["ExitBySignal"], "its processes were ended before"
    grants = [event for event in job.history() if event["event"] == "lease-acquired"]
    assert [grant["fence"] for grant in grants] == [1, 2], job.explain()
