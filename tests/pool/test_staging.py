"""The scenarios on a real pool: the same code that `htlease scenario` plays."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest

from htlease_lab.scenarios.environment import Environment
from htlease_lab.scenarios.runner import Scenario
from htlease_lab.scenarios.scenario_table import SCENARIOS
from htlease_lab.scenarios.workflow import Workflow

#: A wait in a play is bounded by itself; this is for a machine that is very busy.
pytestmark = pytest.mark.timeout(400)

ONE_LONG, SHORT_ONES, NO_JOB = "job", "chain", "defer"

#: Both patterns of the notes play all of A to E; by no job at all those that differ.
STAGING = [
    *[(name, ONE_LONG, "globus" if name in "AD" else "command") for name in "ABCD"],
    *[(name, SHORT_ONES, "globus" if name in "BC" else "command") for name in "ABCD"],
    *[(name, NO_JOB, "command") for name in "AD"],
    ("B", NO_JOB, "globus"),
    ("E", ONE_LONG, "globus"),
    ("E", SHORT_ONES, "command"),
    ("lost-reply", ONE_LONG, "command"),
    ("crash", ONE_LONG, "command"),
    ("hold", ONE_LONG, "globus"),
    *[("maintenance", watcher, "command") for watcher in (ONE_LONG, SHORT_ONES)],
]
#: The worst of the plays with kills; each takes a minute, and the rest is `slow`.
SOME_KILLS = {
    ("kills-schedd-rescue", ONE_LONG),
    ("kills-schedd-cleaned", ONE_LONG),
    ("kills-dagman-cleaning", SHORT_ONES),
    ("kills-server-failed", NO_JOB),
}
KILLS = [
    pytest.param(
        run,
        watcher,
        "command",
        id=f"{run.name}-{watcher}",
        marks=() if (run.name, watcher) in SOME_KILLS else pytest.mark.slow,
    )
    for run in SCENARIOS["kills"]
    for watcher in (ONE_LONG, SHORT_ONES, NO_JOB)
]
PLAYS = [
    pytest.param(run, watcher, backend, id=f"{run.name}-{watcher}-{backend}")
    for name, watcher, backend in STAGING
    for run in SCENARIOS[name]
] + KILLS


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    """A pool of the scenarios' own, since `condor_rm -all` is part of them."""

    def tell(text: str, colour: str | None) -> None:
        print(time.strftime("%H:%M:%S"), text)

    # Test sessions that run at the same time get one pool each.
    environment = Environment(f"staging{os.getpid()}", None, tell)
    try:
        environment.up()
        yield environment
    finally:
        environment.down()


@pytest.mark.parametrize(("scenario", "watcher", "backend"), PLAYS)
def test_order_and_counts_are_what_the_notes_say(
    environment: Environment, scenario: Scenario, watcher: str, backend: str
) -> None:
    assert scenario.run(environment, watcher, backend).wrong == []


@pytest.mark.parametrize("scenario", SCENARIOS["walltime"], ids=lambda scenario: scenario.name)
def test_a_job_that_has_had_its_time_goes_by_its_plan(
    environment: Environment, scenario: Scenario
) -> None:
    assert scenario.run(environment, ONE_LONG, "command").wrong == []


def test_htcondors_own_file_transfer_carries_tasks_out_once(environment: Environment) -> None:
    workflow = Workflow(environment, "condor-transfer")
    workflow.write_all(ONE_LONG, "condor")
    workflow.init()
    workflow.submit()
    task = workflow.wait_task()
    assert workflow.wait_end() == 0
    assert workflow.result() == "SOME INPUT\n"
    asked = ["condor_history", "-constraint", "HTLeaseTransferKey =!= undefined", "-json"]
    jobs = json.loads(environment.pool.run([*asked, "-attributes", "GlobalJobId"]).stdout)
    assert len(jobs) == 2
    assert task in [job["GlobalJobId"] for job in jobs]


def test_watchers_run_where_the_file_says(environment: Environment) -> None:
    workflow = Workflow(environment, "placed")
    workflow.write_all(ONE_LONG, "command")
    text = workflow.file.read_text()
    place = f"requirements = 'Machine == \"{environment.pool.ep_host('ep2')}\"'"
    workflow.write({"staging.toml": text.replace("[watch]", f"[watch]\n{place}")})
    environment.service.repair()
    workflow.init()
    workflow.submit()
    assert workflow.wait_end() == 0
    hosts = [
        environment.pool.job_ad(event.job)["LastRemoteHost"].partition("@")[2]
        for event in workflow.job_events()
        if event.event == "execute" and event.node != "compute"
    ]
    assert hosts == [environment.pool.ep_host("ep2")] * 2
    assert workflow.result() == "SOME INPUT\n"


def test_no_credential_is_in_any_file_of_the_workflows(environment: Environment) -> None:
    (pausing,) = SCENARIOS["A"]
    played = pausing.run(environment, ONE_LONG, "globus")
    secrets = {
        environment.secret: {environment.credential},
        played.workflow.file.with_suffix(".token").read_text().strip(): {
            played.workflow.file.with_suffix(".token")
        },
    }
    places = [played.workflow.directory, environment.site, environment.pool.directory / "ap"]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert any(path.name == "job_queue.log" for path in files)
    for secret, homes in secrets.items():
        assert {path for path in files if secret.encode() in path.read_bytes()} == homes
