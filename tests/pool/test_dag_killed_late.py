"""DAGMan is killed while a script of a splice's or of the FINAL node runs: nothing is done twice.

While their jobs run: `test_dag_kinds.py`.
"""

from __future__ import annotations

import pytest
from tests.pool.dag_instrumented import Instrumented
from tests.pool.lab import Lab

#: A job that waits where DAGMan runs, as `wait.sh` does.
FINAL = """\
universe = scheduler
executable = wait.sh
arguments = final
log = final.log
queue
"""
LINES = ["SPLICE X middle.dag", "FINAL F final.sub"]
SPLICE = ["JOB a job.sub", "JOB b job.sub", "PARENT a CHILD b"]
#: What runs when DAGMan is killed -> further lines of the splice and of the DAG.
MOMENTS: dict[str, tuple[list[str], list[str]]] = {
    "post-in-splice": (["SCRIPT POST a wait.sh post-in-splice"], []),
    "pre-of-final": ([], ["SCRIPT PRE F wait.sh pre-of-final"]),
    "post-of-final": ([], ["SCRIPT POST F wait.sh post-of-final"]),
}


def closings(lab: Lab, key: str) -> list[str]:
    return [f"{e['by']} {e['outcome']}" for e in lab.server.events(key, "subjob-closed")]


@pytest.fixture(scope="module")
def dags(lab: Lab) -> dict[str, Instrumented]:
    """One DAG for each moment, all at once."""
    made = {}
    for moment, (of_splice, of_dag) in MOMENTS.items():
        dag = Instrumented(
            lab,
            moment,
            [*LINES, *of_dag],
            files={
                "middle.dag": "\n".join([*SPLICE, *of_splice, ""]),
                "final.sub": FINAL,
            },
        )
        dag.let_go("final")
        dag.submit()
        made[moment] = dag
    return made


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_dagman_that_is_killed_late_ends_its_dag_all_the_same(
    lab: Lab, dags: dict[str, Instrumented], moment: str
) -> None:
    dag = dags[moment]
    lab.wait_for(lambda: f"begin {moment}" in dag.ran, f"{moment} to run", 150)
    (before,) = dag.dagman()
    dag.kill_dagman()
    lab.wait_for(
        lambda: [one for one in dag.dagman() if one.pid != before.pid], "the next DAGMan", 60
    )
    dag.let_go(moment)
    if moment == "post-of-final":
        # 23.9.6 sees the end of the FINAL node and does not end itself, as in `test_dag_kinds.py`.
        lab.wait_for(lambda: closings(lab, dag.key("F")), "the final node to be settled", 120)
        lab.pool.remove(dag.job)
        dag.wait(60)
    else:
        assert dag.wait(180) == 0, dag.explain()
    for node in ("X+a", "X+b"):
        key = dag.key(node)
        assert closings(lab, key) == ["committed complete"], (
            lab.server.history(key),
            dag.explain(),
        )
        for phase in ("register", "compute"):
            assert len(lab.witness.notes(key, "start", phase)) == 1, (node, phase)
    assert closings(lab, dag.key("F"))[-1].endswith(" complete"), dag.explain()
    assert dag.ran.count("end final") == 1, dag.explain()
