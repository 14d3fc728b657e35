"""The pyz as `USER_JOB_WRAPPER`: any job runs under a lease, and none is the worse for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.process.execution import Sandbox
from tests.serving import ServerProcess

NewSandbox = Callable[..., Sandbox]
SH = "/bin/sh"


def _is_known(sandbox: Sandbox) -> bool:
    workflow, _, subjob = sandbox.key.partition("/")
    found = sandbox.server.ask("GET", f"subjobs?id={subjob}")["subjobs"]
    return any(entry["workflow"] == workflow for entry in found)


@pytest.fixture
def as_site(new_sandbox: NewSandbox) -> NewSandbox:
    """Make scratch directories whose jobs name no key; the access point's attributes do."""

    def new(server: ServerProcess, **start: int) -> Sandbox:
        box = new_sandbox(server, **start)
        box.call = ()
        del box.environ["HTLEASE_KEY"]
        box.job_ad["HTLeaseKey"] = box.key
        return box

    return new


@pytest.fixture
def job(as_site: NewSandbox, server: ServerProcess) -> Sandbox:
    return as_site(server)


def test_a_job_that_knows_nothing_has_a_lease_and_a_record(job: Sandbox) -> None:
    assert job.run(SH, "-c", 'echo "$HTLEASE_KEY $HTLEASE_PHASE $1"', "x", "a b 'c'") == 0
    assert job.output.decode() == f"{job.key} run a b 'c'\n"
    document = job.server.subjob(job.key)
    assert (document["status"], document["exit_code"]) == ("exited", 0)
    assert [entry["name"] for entry in document["phases"]] == ["run"]
    assert job.messages == ""
    assert not (job.path / ".htlease.json").exists()
