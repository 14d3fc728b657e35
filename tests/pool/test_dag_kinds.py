"""Nodes of every kind, instrumented as a user does it, under a real DAGMan."""

from __future__ import annotations

import re

import pytest
from tests.pool.dag_instrumented import Instrumented
from tests.pool.lab import Lab

FAILS_FIRST = {"exit": {"compute": {"1": 5}}}
#: Runs where DAGMan does, and tells it that the resources are there; DAGMan waits for its end.
PROVISIONER = """\
#!/bin/sh
echo provision >> ran
condor_qedit "$1" ProvisionerState 2
sleep 3
"""
BARE = """\
universe = scheduler
executable = {program}
arguments = {arguments}
log = bare.log
queue
"""


def bare(program: str, arguments: str) -> str:
    return BARE.format(program=program, arguments=arguments)


def note(word: str) -> str:
    return f"#!/bin/sh\necho {word} >> ran\n"


def closings(lab: Lab, key: str) -> list[str]:
    return [f"{e['by']} {e['outcome']}" for e in lab.server.events(key, "subjob-closed")]


def starts(lab: Lab, key: str, phase: str) -> int:
    return len(lab.witness.notes(key, "start", phase))


def test_a_dag_with_every_kind_of_node_ends_complete_and_runs_once(lab: Lab) -> None:
    dag = Instrumented(
        lab,
        "kinds",
        [
            "PROVISIONER P provisioner.sub",
            "SERVICE V service.sub",
            "JOB A job.sub",
            "JOB N job.sub NOOP",
            "SPLICE X middle.dag",
            "SUBDAG EXTERNAL D sub.dag",
            "FINAL F final.sub",
            "PARENT A CHILD N",
            "PARENT N CHILD X D",
            "RETRY ALL_NODES 1",
        ],
        files={
            "middle.dag": "SPLICE Y inner.dag\nJOB m job.sub\nPARENT Y CHILD m\n",
            "inner.dag": "JOB a flaky.sub\nJOB b job.sub\nPARENT a CHILD b\nRETRY a 1\n",
            "sub.dag": "JOB s flaky.sub\nRETRY s 1\n",
            "provisioner.sub": bare("provision.sh", "$(ClusterId).0"),
            "provision.sh": PROVISIONER,
            "service.sub": bare("serve.sh", ""),
            "serve.sh": "#!/bin/sh\necho serve >> ran\nexec sleep 600\n",
            "final.sub": bare("final.sh", ""),
            "final.sh": note("final"),
        },
        behaviours={"flaky": FAILS_FIRST},
        sub_dags=["sub.dag"],
    )
    dag.submit("-MaxPre", "1", "-MaxPost", "1")
    assert dag.wait(240) == 0, dag.explain()
    sub = dag.settings("sub.dag")["workflow"]
    once = [dag.key(node) for node in ("A", "X+m", "X+Y+b")]
    twice = [dag.key("X+Y+a"), f"{sub}/s"]
    without_job = [dag.key(node) for node in ("N", "D")]
    for key in once:
        assert closings(lab, key) == ["committed complete"], key
        assert (starts(lab, key, "register"), starts(lab, key, "compute")) == (1, 1), key
    for key in twice:
        assert closings(lab, key) == ["settled failed", "committed complete"], key
        assert (starts(lab, key, "register"), starts(lab, key, "compute")) == (1, 2), key
    for key in without_job:
        assert closings(lab, key)[-1].endswith("complete"), key
    assert sorted(dag.ran) == ["final", "provision", "serve"]
    everything = [*once, *twice, *without_job]
    before = [lab.server.history(key) for key in everything]
    dag.submit("-f")
    assert dag.wait(120) == 0, dag.explain()
    assert [lab.server.history(key) for key in everything] == before
    assert dag.ran.count("final") == 2  # it belongs to each submission


def test_a_dag_of_which_nothing_ran_does_not_end_well(lab: Lab) -> None:
    dag = Instrumented(
        lab,
        "provisioned",
        ["PROVISIONER P provisioner.sub", "JOB A job.sub", "JOB B job.sub", "FINAL F final.sub"],
        files={
            "provisioner.sub": bare("provision.sh", "$(ClusterId).0"),
            "provision.sh": "#!/bin/sh\necho provision >> ran\nsleep 8\n",
            "final.sub": bare("final.sh", ""),
            "final.sh": note("final"),
        },
    )
    dag.submit()
    lab.wait_for(lambda: dag.ran == ["provision"], "the provisioner to run", 60)
    dag.kill_dagman()
    # 23.9.6 goes on with F and ends with 0; 25.14.1 says that the provisioner is gone.
    assert dag.wait(180) == 1, dag.explain()
    assert not (dag.directory / "job.log").exists()
    if "final" in dag.ran:
        assert "2 of its 3 nodes never ran" in (dag.directory / "d.dag.htlease.log").read_text()


def test_dagman_killed_in_a_splice_and_in_the_final_node_does_nothing_twice(lab: Lab) -> None:
    dag = Instrumented(
        lab,
        "cut-off",
        ["SPLICE X inner.dag", "JOB B job.sub", "PARENT X CHILD B", "FINAL F final.sub"],
        files={
            "inner.dag": "JOB a blocked.sub\nJOB b job.sub\nPARENT a CHILD b\n",
            "final.sub": bare("final.sh", ""),
            "final.sh": "#!/bin/sh\necho final >> ran\nsleep 8\necho over >> ran\n",
        },
        behaviours={"blocked": {"block": {"compute": [1]}, "block_seconds": 10}},
    )
    dag.submit()
    lab.wait_for(lambda: starts(lab, dag.key("X+a"), "compute"), "a node of the splice", 60)
    dag.kill_dagman()
    lab.wait_for(lambda: dag.ran == ["final"], "the final node", 120)
    dag.kill_dagman()
    # 23.9.6 sees the end of the FINAL node then, and does not end itself; without htlease neither.
    lab.wait_for(lambda: closings(lab, dag.key("F")), "the final node to be settled", 120)
    lab.pool.remove(dag.job)
    dag.wait(60)
    assert dag.ran == ["final", "over"]
    for node in ("X+a", "X+b", "B"):
        assert starts(lab, dag.key(node), "compute") == 1, node
        assert closings(lab, dag.key(node)) == ["committed complete"], node
    assert closings(lab, dag.key("F")) == ["settled complete"]


def test_of_a_node_with_several_jobs_only_what_is_not_complete_runs_again(lab: Lab) -> None:
    dag = Instrumented(
        lab,
        "several-jobs",
        ["JOB Q many.sub", "JOB B job.sub", "PARENT Q CHILD B", "RETRY Q 2"],
        behaviours={"many*3": {"1": FAILS_FIRST}},
    )
    dag.submit()
    assert dag.wait(180) == 0, dag.explain()
    for number, computed in enumerate((1, 2, 1)):
        key = dag.key(f"Q.{number}")
        assert starts(lab, key, "register") == 1, key
        assert starts(lab, key, "compute") == computed, key
        assert closings(lab, key)[-1].endswith("complete"), key
    assert closings(lab, dag.key("Q"))[-1].endswith("complete")
    assert closings(lab, dag.key("B")) == ["committed complete"]
    submitted = len(lab.pool.events(dag.directory / "job.log", 0))
    dag.submit("-f")
    assert dag.wait(120) == 0, dag.explain()
    assert len(lab.pool.events(dag.directory / "job.log", 0)) == submitted


def test_dags_that_were_submitted_as_one_are_refused_before_anything_runs(lab: Lab) -> None:
    dag = Instrumented(
        lab, "merged", ["JOB A job.sub"], files={"e.dag": "JOB A job.sub\n"}, sub_dags=["e.dag"]
    )
    done = lab.pool.run(["condor_submit_dag", "d.dag", "e.dag"], cwd=dag.directory)
    found = re.search(r"submitted to cluster (\d+)", done.stdout)
    assert found, done.stdout
    dag.job = f"{found[1]}.0"
    assert dag.wait() != 0
    # On 23.9.6 DAGMan itself finds ALL_NODES wanting, which it calls 0.ALL_NODES then.
    out = (dag.directory / "d.dag.dagman.out").read_text()
    said = "".join(path.read_text() for path in dag.directory.glob("*.htlease.log"))
    ours = "d.dag and e.dag were submitted together" in said and "submit each alone" in said
    assert ours or "Unknown Job ALL_NODES" in out, (said, out[-2000:])
    assert not (dag.directory / "job.log").exists()
    for rescue in dag.directory.glob("*.rescue*"):
        rescue.unlink()
    dag.submit("-f")
    assert dag.wait() == 0, dag.explain()
    assert closings(lab, dag.key("A")) == ["committed complete"]


def test_a_job_that_somebody_removes_is_a_failed_try(lab: Lab) -> None:
    dag = Instrumented(
        lab,
        "gone",
        ["JOB A blocked.sub", "RETRY A 1"],
        behaviours={"blocked": {"block": {"compute": [1]}}},
    )
    dag.submit()
    lab.wait_for(lambda: starts(lab, dag.key("A"), "compute"), "the job to compute", 60)
    [job] = {event.cluster for event in lab.pool.events(dag.directory / "job.log", 0)}
    lab.pool.remove(f"{job}.0")
    assert dag.wait() == 0, dag.explain()
    assert "the job was removed" in dag.script_output("POST", "A")
    assert closings(lab, dag.key("A"))[-1] == "committed complete"
    assert starts(lab, dag.key("A"), "register") == 1
    assert starts(lab, dag.key("A"), "compute") == 2


def test_a_named_rescue_dag_and_a_post_that_always_runs(lab: Lab) -> None:
    dag = Instrumented(
        lab,
        "rescued",
        [
            "JOB A job.sub",
            "JOB B job.sub",
            "PARENT A CHILD B",
            "SCRIPT PRE B refuse.sh",
            "SCRIPT POST B note.sh $PRE_SCRIPT_RETURN $RETURN",
        ],
        files={
            "refuse.sh": "#!/bin/sh\n[ -e allowed ] || exit 3\n",
            "note.sh": '#!/bin/sh\necho "$@" >> ran\n[ "$2" = 0 ]\n',
        },
    )
    dag.submit("-AlwaysRunPost")
    assert dag.wait() != 0
    assert dag.ran == ["3 -1004"]
    assert closings(lab, dag.key("B")) == ["settled failed"]
    dag.write("allowed", "")
    dag.submit("-DoRescueFrom", "1")
    assert dag.wait() == 0, dag.explain()
    assert dag.ran[1:] == ["0 0"]
    assert [closings(lab, dag.key(node))[-1] for node in "AB"] == ["committed complete"] * 2
    assert starts(lab, dag.key("A"), "compute") == 1


@pytest.mark.parametrize("code", [5, 76])
def test_a_complete_subjob_aborts_no_dag_whatever_its_job_exits_with(lab: Lab, code: int) -> None:
    dag = Instrumented(
        lab,
        "abort",
        ["JOB A bare.sub", f"ABORT-DAG-ON A {code} RETURN 1"],
        files={
            "bare.sub": bare("bare.sh", str(code)),
            "bare.sh": '#!/bin/sh\necho begun >> ran\nwhile [ ! -e go ]; do sleep 0.1; done\nexit "$1"\n',
        },
    )
    dag.submit()
    lab.wait_for(lambda: dag.ran, "the job to run", 60)
    key, nonce = dag.key("A"), "n" * 24
    granted = lab.server.command(
        key, "acquire", kind="operator", nonce=nonce, global_job_id="by-hand", evidence={}
    )
    lab.server.command(
        key,
        "settle",
        fence=granted["fence"],
        nonce=nonce,
        outcome="complete",
        reason="done by hand",
    )
    dag.write("go", "")
    assert dag.wait() == 0, dag.explain()
    assert closings(lab, key) == ["settled complete"]


def test_the_final_node_of_a_dag_cut_short_tells_which_jobs_were_removed(lab: Lab) -> None:
    lines = ["JOB A fails.sub", "JOB B slow.sub", "FINAL F final.sub"]
    put_off = ["SCRIPT PRE A wait.sh pre", "ABORT-DAG-ON A 5 RETURN 1"]
    aborted, removed = (
        Instrumented(
            lab,
            f"cut-{name}",
            [*lines, *put_off],
            files={"final.sub": bare("final.sh", ""), "final.sh": note("final")},
            behaviours={
                "fails": {"exit": {"compute": {"1": 5}}},
                "slow": {"block": {"compute": [1]}, "block_seconds": 600},
            },
        )
        for name in ("aborted", "removed")
    )
    for dag in (aborted, removed):
        dag.submit()
    keys = [dag.key("B") for dag in (aborted, removed)]
    lab.wait_for(lambda: all(starts(lab, key, "compute") for key in keys), "B to compute", 90)
    aborted.let_go("pre")
    lab.pool.remove(removed.job)

    def told(dag: Instrumented) -> list[tuple[str, str]]:
        events = lab.server.events(dag.key("B"), "job-removed")
        return [(event["by"], event["reason"].partition(":")[0]) for event in events]

    for dag in (aborted, removed):
        dag.wait()
        assert dag.ran[-1:] == ["final"], dag.explain()
        assert closings(lab, dag.key("F")) == ["settled complete"], dag.explain()
    assert told(aborted) == [("dagman", "DAG Abort")], aborted.explain()
    of_job, of_dag = told(removed)
    assert of_job == ("dagman", "DAG Removed"), removed.explain()
    assert (of_dag[0], of_dag[1][:12]) == ("user", "via condor_r"), removed.explain()
    assert lab.server.events(removed.key("A"), "job-removed") == [], "it had no job"
