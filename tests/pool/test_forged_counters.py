"""HTCondor's counters can be forged by a job and by its owner: that takes no lease from anybody."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from tests.pool.lab import PROJECT, Lab, TestJob

ACCESS_POINT = (PROJECT / "hooks" / "condor" / "access-point.conf").read_text()

#: What a job does to its own counters, and what it is answered.
FORGE = b"""\
#!/bin/sh
for pair in "NumJobStarts 77" "NumShadowStarts 99"; do
    /usr/libexec/condor/condor_chirp set_job_attr $pair > /dev/null 2>&1
    echo "$pair: $?"
done
sleep 14
"""
FORGING_PLAN = '[[phase]]\nname = "compute"\nrun = ["./forge.sh"]\nrestart = "once"\n'


@pytest.fixture(params=["unprotected", "protected"])
def is_protected(request: pytest.FixtureRequest, lab: Lab) -> Iterator[bool]:
    """An access point as HTCondor comes, then one with our configuration file."""
    is_protected = request.param == "protected"
    lab.pool.configure("ap", "htlease", ACCESS_POINT if is_protected else None)
    yield is_protected
    lab.pool.configure("ap", "htlease", None)


def may_edit(job: TestJob, attribute: str, value: int) -> bool:
    """Try to set an attribute as the job's owner, and tell whether the schedd let it pass."""
    edit = ["condor_qedit", job.job, attribute, str(value)]
    done = job.lab.pool.run(edit, check=False)
    return done.returncode == 0 and job.lab.pool.job_ad(job.job)[attribute] == value


def events(job: TestJob, *kinds: str) -> list[dict[str, Any]]:
    """Return what the server has recorded of some kinds."""
    return [event for event in job.history() if event["event"] in kinds]


def test_forging_under_a_live_holder_leaves_the_lease_with_it(lab: Lab, is_protected: bool) -> None:
    """The owner forges in the queue, the job from inside; three renewals later it is still its."""
    subjob = "protected" if is_protected else "unprotected"
    job = lab.submit(
        "forged-inside",
        plan=FORGING_PLAN,
        ttl_seconds=12,
        # The access point stamps a key of its own on jobs that name none.
        files={"forge.sh": FORGE, "htlease.token": lab.token("forged-inside").encode()},
        lines=["+WantIOProxy = true", f'+HTLeaseKey = "forged-inside/{subjob}"'],
    )
    job.key = f"forged-inside/{subjob}"
    lab.pool.wait_event(job.log, 1)
    lab.wait_for(job.is_known, "the lease", 60)
    assert may_edit(job, "NumJobStarts", 51), "protecting it would break the shadow"
    assert may_edit(job, "NumShadowStarts", 60) is not is_protected
    job.wait_status("complete")
    assert [grant["fence"] for grant in job.grants()] == [1], job.explain()
    assert not events(job, "lease-recalled", "write-refused"), job.explain()
    ad = job.wait_gone()
    assert ad["ExitCode"] == 0
    answers = dict(line.split(": ") for line in (job.directory / "out").read_text().splitlines())
    assert answers["NumJobStarts 77"] == "0"
    assert (answers["NumShadowStarts 99"] == "0") is not is_protected
    if is_protected:
        assert ad["NumShadowStarts"] == 1, "the schedd itself counts on"


def test_an_older_submission_is_not_made_newer_by_its_counters(lab: Lab) -> None:
    old = lab.submit("forged-older", {"block": {"compute": [1]}})
    old.wait_told("alive", "compute")
    lab.pool.hold(old.job)
    lab.wait_for(lambda: events(old, "lease-abandoned"), "the held job to give its lease up", 60)
    new = lab.submit(
        "forged-newer",
        {"block": {"compute": [2]}, "block_seconds": 25},
        arguments=f"--key {old.key} --plan plan.toml",
        files={"htlease.token": lab.token(old.key.split("/")[0]).encode()},
    )
    old.wait_told("alive", "compute", attempt=2)
    assert may_edit(old, "NumJobStarts", 51) and may_edit(old, "NumShadowStarts", 60)
    lab.pool.release(old.job)
    assert old.wait_gone()["ExitCode"] == 76, old.explain()
    assert not events(old, "lease-recalled"), old.explain()
    old.wait_status("complete")
    assert [grant["fence"] for grant in old.grants()] == [1, 2], old.explain()
    assert new.wait_gone()["ExitCode"] == 0


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_second_start_with_forged_counters_waits_for_the_live_holder(
    lab: Lab, direction: str
) -> None:
    """HTCondor gives up a starter that is frozen, and only the starter: the job works on.

    Counters forged up are no proof, so the holder is asked to finish; forged down they make the
    order unclear, and the newcomer waits for whatever the holder does.
    """
    job = lab.submit(
        f"forged-{direction}",
        {"block": {"compute": [1]}, "block_seconds": 120 if direction == "up" else 60},
        ttl_seconds=10,
        lines=["hold = true"],
    )
    first, then = (0, 60) if direction == "up" else (60, 0)
    forge(job, first)
    lab.pool.release(job.job)
    job.wait_told("alive", "compute")
    starter, *working = lab.pool.freeze(job.job)
    for process in reversed(working):
        process.send(signal.SIGCONT)
    try:
        lab.pool.kill_shadow(job.job)
        forge(job, then)
        document = job.wait_status("complete")
    finally:
        starter.send(signal.SIGCONT)
    told = {what: job.told(what) for what in ("start", "alive")}
    by_second = [note["at"] for note in told["start"] if note["attempt"] == 2]
    assert by_second or direction == "down", job.explain()
    last_of_first = max(note["at"] for note in told["alive"] if note["attempt"] == 1)
    assert all(last_of_first < at for at in by_second), job.explain()
    for grant in job.grants()[1:]:
        assert grant["why"] in ("abandoned", "expired", "exited"), grant
    assert document["status"] == "complete"


def forge(job: TestJob, value: int) -> None:
    assert may_edit(job, "NumJobStarts", value) and may_edit(job, "NumShadowStarts", value)
