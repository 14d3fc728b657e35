"""PRE, POST and HOLD scripts under a real DAGMan."""

from __future__ import annotations

from tests.pool.dag import Dag
from tests.pool.lab import Lab


def closings(lab: Lab, dag: Dag, node: str) -> list[str]:
    """Return how a node's subjob was closed, each time it was."""
    return [
        f"{event['by']} {event['outcome']}"
        for event in lab.server.events(dag.key(node), "subjob-closed")
    ]


def test_a_dag_runs_and_its_second_submission_runs_nothing(lab: Lab) -> None:
    dag = Dag(lab, "two", ["JOB A job.sub", "JOB B job.sub", "PARENT A CHILD B"])
    dag.submit()
    assert dag.wait() == 0, dag.explain()
    for node in "AB":
        assert closings(lab, dag, node) == ["committed complete"]
        assert len(lab.witness.notes(dag.key(node), "start")) == 2  # its two phases
        assert lab.server.subjob(dag.key(node))["submissions"][0]["retry"] == 0
    before = [lab.server.history(dag.key(node)) for node in "AB"]
    dag.submit("-f")
    assert dag.wait() == 0, dag.explain()
    assert [lab.server.history(dag.key(node)) for node in "AB"] == before
    assert len(lab.pool.events(dag.directory / "job.log", 0)) == 2  # no further job
