"""The scenarios of the staging notes on a real pool: the same code that `htlease scenario` plays."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from htlease_admin.scenarios import plays
from htlease_admin.scenarios.stage import Stage

#: A wait in a play is bounded by itself; this is for a machine that is very busy.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A pool of the scenarios' own, since `condor_rm -all` is part of them."""

    def say(text: str) -> None:
        print(time.strftime("%H:%M:%S"), text)

    # Test sessions that run at the same time get one pool each.
    stage = Stage(f"staging{os.getpid()}", None, say, say)
    try:
        stage.up()
        yield stage
    finally:
        stage.down()


@pytest.mark.parametrize(
    ("watcher", "backend"), [("job", "globus"), ("chain", "command"), ("defer", "command")]
)
def test_a_pausing_transfer_just_waits(stage: Stage, watcher: str, backend: str) -> None:
    assert plays.pausing(stage, watcher, backend).wrong == []


@pytest.mark.parametrize(("watcher", "backend"), [("job", "command"), ("defer", "globus")])
def test_a_failed_stage_in_is_cleaned_up_once_and_nothing_else_runs(
    stage: Stage, watcher: str, backend: str
) -> None:
    assert plays.failing(stage, watcher, backend).wrong == []


@pytest.mark.parametrize(("watcher", "backend"), [("job", "command"), ("chain", "globus")])
def test_an_expired_credential_waits_tells_once_and_resumes(
    stage: Stage, watcher: str, backend: str
) -> None:
    assert plays.expiring(stage, watcher, backend).wrong == []


@pytest.mark.parametrize(("watcher", "backend"), [("job", "globus"), ("defer", "command")])
def test_a_lost_queue_and_server_cost_no_second_transfer(
    stage: Stage, watcher: str, backend: str
) -> None:
    assert plays.orphaning(stage, watcher, backend).wrong == []


def test_an_orphan_is_found_although_nobody_ever_heard_its_id(stage: Stage) -> None:
    assert plays.losing_the_reply(stage, "job", "command").wrong == []


@pytest.mark.parametrize(
    "play", plays.SCENARIOS["E"], ids=("running", "finished", "failed", "unknown")
)
def test_a_transfer_from_elsewhere_is_grafted_on(stage: Stage, play: plays.Play) -> None:
    assert play(stage, "job", "globus").wrong == []


def test_no_credential_is_in_any_file_of_the_workflows(stage: Stage) -> None:
    played = plays.pausing(stage, "job", "globus")
    secrets = {
        stage.secret: {stage.credential},
        played.workflow.file.with_suffix(".token").read_text().strip(): {
            played.workflow.file.with_suffix(".token")
        },
    }
    places = [played.workflow.directory, stage.site, stage.pool.directory / "ap"]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert any(path.name == "job_queue.log" for path in files)
    for secret, homes in secrets.items():
        assert {path for path in files if secret.encode() in path.read_bytes()} == homes
