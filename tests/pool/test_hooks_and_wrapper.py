"""Hooks and the whole wrapper around every job (`HTLEASE_WRAP_JOBS`): one lease for each start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.pool.hooked import HookedSite
from tests.pool.lab import Lab

_PLAN = """\
[[phase]]
name = "fetch"
run = ["/bin/sh", "-c", "echo fetched"]
restart = "once"
[[phase]]
name = "compute"
run = ["./job.sh"]
restart = "resume"
"""
#: The first attempt stays until it is made to go.
_SCRIPT = (
    'echo "attempt $HTLEASE_ATTEMPT_NUMBER"; test "$HTLEASE_ATTEMPT_NUMBER" -gt 1 || sleep 300'
)


@pytest.fixture(scope="module")
def site(lab: Lab) -> Iterator[HookedSite]:
    site = HookedSite(lab)
    site.configure(HTLEASE_WRAP_JOBS="True")
    yield site
    site.remove()


def entered(events: list[dict[str, object]]) -> list[tuple[object, object]]:
    return [(e["fence"], e["phase"]) for e in events if e["event"] == "phase-entered"]


def test_the_wrapper_brings_its_plan_under_the_hooks_lease_and_reclaims_it(
    site: HookedSite,
) -> None:
    pool = site.lab.pool
    job = site.submit(
        "wrapped",
        '+HTLeasePlan = "plan.toml"',
        "transfer_input_files = plan.toml",
        script=_SCRIPT,
        earlier={"plan.toml": _PLAN},
    )

    def computes(fence: int) -> bool:
        return job.is_known() and (fence, "compute") in entered(job.history())

    job.lab.wait_for(lambda: computes(1), "the first attempt to compute", 90)
    names = [event["event"] for event in job.history()]
    assert names.count("lease-acquired") == 1, "one lease for hook and wrapper\n" + job.explain()
    assert (
        names.index("lease-acquired") < names.index("plan-changed") < names.index("phase-entered")
    )
    pool.vacate(job.job)
    ad = job.wait_gone(120)
    why = job.explain()
    assert ad["ExitCode"] == 0, why
    assert [grant["fence"] for grant in job.grants()] == [1, 2], why
    phases = [(1, "fetch"), (1, "compute"), (2, "compute")]
    assert entered(job.history()) == phases, "fetched once\n" + why
    assert (job.directory / "out").read_text() == "attempt 2\n"
    left = sorted(path.name for path in job.directory.iterdir())
    assert left == ["err", "job.sh", "log", "out", "plan.toml"], "nothing of ours came back"


def test_an_ordinary_job_has_one_lease_and_its_own_exit_code(site: HookedSite) -> None:
    job = site.submit("ordinary", script="echo done; exit 7")
    ad = job.wait_gone(120)
    assert ad["ExitCode"] == 7, job.explain()
    assert [grant["fence"] for grant in job.grants()] == [1], job.explain()
    assert entered(job.history()) == [(1, "run")], job.explain()
    assert job.subjob()["attempts"][0]["exit_code"] == 7
    assert (job.directory / "out").read_text() == "done\n"


def test_a_job_that_opted_out_has_neither(site: HookedSite) -> None:
    job = site.submit("opted-out", "+HTLease = False", script="env")
    ad = job.wait_gone(120)
    assert ad["ExitCode"] == 0
    assert not job.is_known()
    assert "HTLEASE" not in (job.directory / "out").read_text()
