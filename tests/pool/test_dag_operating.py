"""What people do to a running DAG: hold it, release it, remove it, lower a flag, look at it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from tests.pool.dag import Dag
from tests.pool.lab import Lab

from htlease.condor.hold_codes import OUR_SUBCODE
from htlease_cli.dag.status import NEEDS_A_PERSON, UNDER_WAY

HELD = 12
PLAN = """\
[[phase]]
name = "register"
run = ["./phase.py"]
restart = "once"
needs = ["{tape}"]
[[phase]]
name = "compute"
run = ["./phase.py"]
restart = "resume"
needs = ["{disk}"]
"""


def told(dag: Dag, node: str, *names: str) -> list[dict[str, Any]]:
    return dag.lab.server.events(dag.key(node), *names)


def wait_computing(dag: Dag, *nodes: str) -> None:
    def compute() -> bool:
        return all(dag.lab.witness.notes(dag.key(node), "start", "compute") for node in nodes)

    dag.lab.wait_for(compute, f"{nodes} to compute\n{dag.explain()}", 90)


def job_of(dag: Dag, node: str) -> str:
    """Return the job that runs a node, e.g. `12.0`."""
    newest = dag.lab.server.subjob(dag.key(node))["submissions"][-1]["global_job_id"]
    return str(newest).split("#")[1]


def wait_told(dag: Dag, node: str, event: str, count: int = 1) -> dict[str, Any]:
    found: list[dict[str, Any]] = dag.lab.wait_for(
        lambda: told(dag, node, event)[count - 1 :], f"{event} of {node}\n{dag.explain()}", 60
    )
    return found[0]


def test_a_held_dag_goes_on_when_released_and_the_users_own_hold_stays(lab: Lab) -> None:
    dag = Dag(
        lab,
        "held",
        ["JOB A job.sub", "JOB B job.sub"],
        behaviour={"block": {"compute": [1]}, "block_seconds": 600},
    )
    dag.submit()
    wait_computing(dag, "A", "B")
    jobs = {node: job_of(dag, node) for node in "AB"}
    lab.pool.run(["condor_hold", "-reason", "disk, full", jobs["A"]])
    by_user = wait_told(dag, "A", "job-held")
    assert (by_user["by"], by_user["code"]) == ("user", 1)
    assert by_user["reason"].startswith("disk, full"), by_user  # HTCondor adds by whom
    said = dag.htlease("dag", "hold", dag.workflow, "--reason", "moving the disks")
    assert said == (
        "Held: DAGMan's job and 1 of its nodes' jobs; 1 were held before and stay so.\n"
    )
    by_us = wait_told(dag, "B", "job-held")
    assert by_us["by"] == "htlease" and by_us["reason"].startswith("moving the disks")
    assert (by_us["code"], by_us["subcode"]) == (1, OUR_SUBCODE)
    assert [event["by"] for event in told(dag, "A", "job-held")] == ["user"]
    for job in (jobs["B"], dag.job):
        ad = lab.pool.job_ad(job)
        assert (ad["JobStatus"], ad["HoldReasonSubCode"]) == (5, OUR_SUBCODE), ad

    shown = dag.htlease("dag", "status", dag.workflow, status=NEEDS_A_PERSON)
    assert f"DAGMan's job {dag.job} is held: moving the disks" in shown, shown
    assert "held by its user: disk, full" in shown, shown
    assert "held by htlease: moving the disks" in shown, shown

    said = dag.htlease("dag", "release", dag.workflow)
    assert said == (
        "Released: DAGMan's job and 1 of its nodes' jobs; 1 others stay held, by other hands.\n"
    )
    lab.wait_for(lambda: lab.server.subjob(dag.key("B"))["outcome"], "B to end", 90)
    assert [event["by"] for event in told(dag, "B", "job-released")] == ["htlease"]
    assert lab.pool.job_ad(jobs["A"])["JobStatus"] == 5
    assert told(dag, "A", "job-released") == []
    lab.pool.release(jobs["A"])
    assert dag.wait() == 0, dag.explain()
    for node in "AB":  # the same jobs went on, each with its second attempt
        document = lab.server.subjob(dag.key(node))
        assert document["submissions"][-1]["global_job_id"].split("#")[1] == jobs[node]
        assert document["outcome"] == "complete" and document["job_hold"] is None
        grants = [one for one in document["attempts"] if one["kind"] == "job"]
        assert len(grants) == 2
    assert dag.htlease("dag", "status", dag.workflow).splitlines()[1].split()[1] == "complete"


def test_a_hold_that_is_over_before_dagman_calls_is_on_record(lab: Lab) -> None:
    dag = Dag(
        lab,
        "held-briefly",
        ["JOB A job.sub"],
        behaviour={"block": {"compute": [1]}, "block_seconds": 600},
    )
    dag.submit()
    wait_computing(dag, "A")
    job = job_of(dag, "A")
    dagman = dag.dagman()
    assert dagman
    for process in dagman:
        process.send(signal.SIGSTOP)
    lab.pool.run(["condor_hold", "-reason", "disk full", job])
    lab.pool.wait_event(dag.directory / "job.log", HELD)
    lab.pool.release(job)
    assert lab.pool.job_ad(job)["JobStatus"] != 5
    for process in dagman:
        process.send(signal.SIGCONT)
    assert dag.wait() == 0, dag.explain()
    [held] = told(dag, "A", "job-held")
    assert (held["by"], held["code"], held["global_job_id"].split("#")[1]) == ("user", 1, job)
    assert held["reason"].startswith("disk full"), held
    assert len(told(dag, "A", "job-released")) == 1
    assert lab.server.subjob(dag.key("A"))["job_hold"] is None


def test_who_removed_a_dag_is_told_by_its_next_run_or_when_somebody_asks(lab: Lab) -> None:
    dag = Dag(
        lab,
        "removed-dag",
        ["JOB A job.sub"],
        behaviour={"block": {"compute": [1, 2]}, "block_seconds": 600},
    )
    dag.submit()
    wait_computing(dag, "A")
    first = job_of(dag, "A")
    lab.pool.remove(dag.job)
    dag.wait()
    shown = dag.htlease("dag", "status", dag.workflow, status=NEEDS_A_PERSON)
    assert f"DAGMan's job {dag.job} was removed: via condor_rm (by user" in shown, shown
    assert "Submit the DAG again: it continues from here." in shown
    assert told(dag, "A", "job-removed") == []

    dag.submit()
    of_job, of_dag = (wait_told(dag, "A", "job-removed", count) for count in (1, 2))
    print(of_job, of_dag)
    assert of_job["global_job_id"].split("#")[1] == first
    assert (of_job["by"], of_dag["by"]) == ("dagman", "user")
    lab.wait_for(
        lambda: len(lab.witness.notes(dag.key("A"), "start", "compute")) > 1, "A again", 90
    )
    second = job_of(dag, "A")
    assert second != first
    lab.pool.remove(dag.job)
    dag.wait()
    said = dag.htlease("dag", "reconcile", dag.workflow)
    assert said.splitlines()[1].split()[:2] == ["A", "removed"], said
    assert told(dag, "A", "job-removed")[-1]["global_job_id"].split("#")[1] == second
    assert "Nothing to record" in dag.htlease("dag", "reconcile", dag.workflow)
    dag.submit()
    assert dag.wait() == 0, dag.explain()


@pytest.fixture
def eager_shadows(lab: Lab) -> Iterator[None]:
    """Shadows that pass on what chirp sets within seconds; by default it takes a quarter hour."""
    lab.pool.configure("ap", "eager-shadows", "SHADOW_QUEUE_UPDATE_INTERVAL = 3\n")
    yield
    lab.pool.configure("ap", "eager-shadows", None)


@pytest.mark.usefixtures("eager_shadows")
def test_nodes_wait_for_flags_in_their_slot_or_before_they_take_one(lab: Lab) -> None:
    dag = Dag(
        lab,
        "flagged",
        ["JOB A job.sub", "JOB B job.sub", "JOB C job.sub", "PARENT A CHILD B C"],
    )
    tape, disk = f"tape-{dag.workflow}", f"disk-{dag.workflow}"
    dag.write("plan.toml", PLAN.format(tape=tape, disk=disk))
    phases = [
        {"name": "register", "restart": "once", "needs": [tape]},
        {"name": "compute", "restart": "resume", "needs": [disk]},
    ]
    lab.server.ask(
        "PUT",
        f"workflows/{dag.workflow}",
        {
            "request_id": "plan",
            "plan": {"phases": phases},
            "structure": {
                "nodes": dict.fromkeys("ABC", "job"),
                "dependencies": [{"parents": ["A"], "children": ["B", "C"]}],
            },
        },
    )
    dag.htlease("flag", "lower", disk, "--reason", "full")
    dag.submit()
    lab.wait_for(lambda: lab.witness.notes(dag.key("A"), "end", "register"), "A to register", 90)
    job = job_of(dag, "A")
    lab.wait_for(
        lambda: lab.pool.job_ad(job).get("ChirpHTLeaseState") == f"blocked:{disk}",
        "the queue to show what A waits for",
        60,
    )
    shown = dag.htlease("dag", "status", dag.workflow, status=UNDER_WAY)
    assert f"needs {disk}, which is down: full" in shown, shown

    dag.htlease("flag", "lower", tape, "--reason", "robot")
    dag.htlease("flag", "raise", disk)
    lab.wait_for(
        lambda: lab.server.subjob(dag.key("A"))["outcome"] == "complete", "A to complete", 60
    )

    def are_put_off() -> bool:
        return all(f"needs {tape}" in dag.script_output("PRE", node) for node in "BC")

    lab.wait_for(are_put_off, "B and C to be put off", 60)
    counts = json.loads(dag.htlease("dag", "status", dag.workflow, "--json", status=UNDER_WAY))
    assert counts["dags"][0]["counts"] == {"done": 1, "waiting": 2}
    assert len(lab.pool.events(dag.directory / "job.log", 0)) == 1, "no slot was taken"
    assert [event["event"] for event in lab.server.history(dag.key("B"))] == ["submission-enrolled"]
    dag.htlease("flag", "raise", tape)
    assert dag.wait() == 0, dag.explain()
    for node in "ABC":
        assert lab.server.subjob(dag.key(node))["outcome"] == "complete"
        [grant] = [one for one in told(dag, node, "lease-acquired") if one["kind"] == "job"]
        assert grant["attempt_number"] == 1


def test_what_an_aborting_dag_removes_is_told_with_who_removed_it(lab: Lab) -> None:
    dag = Dag(
        lab,
        "aborting",
        ["JOB A job.sub", "JOB B slow.sub", "ABORT-DAG-ON A 5 RETURN 1"],
        behaviour={"exit": {"compute": {"1": 5}}},
    )
    (dag.directory / "slow").mkdir()
    slow = {"witness": lab.witness.url, "block": {"compute": [1]}, "block_seconds": 600}
    dag.write("slow/behaviour.json", json.dumps(slow))
    job = (dag.directory / "job.sub").read_text()
    dag.write("slow.sub", job.replace(" behaviour.json", " slow/behaviour.json"))
    dag.write("wait.sh", '#!/bin/sh\nwhile [ ! -e "go-$1" ]; do sleep 0.2; done\n', 0o755)
    settings = json.loads((dag.directory / "d.htlease.json").read_text())
    settings["nodes"] = {"A": {"pre": ["wait.sh", "pre"]}}
    dag.write("d.htlease.json", json.dumps(settings))
    dag.submit()
    wait_computing(dag, "B")
    dag.let_go("pre")
    assert dag.wait() == 1
    shown = dag.htlease("dag", "status", dag.workflow, status=NEEDS_A_PERSON)
    assert f"DAGMan's job {dag.job} ended with exit code 1" in shown, shown
    said = dag.htlease("dag", "reconcile", dag.workflow)
    print(said)
    [removed] = told(dag, "B", "job-removed")
    assert (removed["by"], "B" in said) == ("dagman", True), (said, removed)
    assert "its job was removed" in dag.htlease(
        "dag", "status", dag.workflow, status=NEEDS_A_PERSON
    )
