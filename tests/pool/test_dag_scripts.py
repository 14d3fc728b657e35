"""PRE, POST and HOLD scripts under a real DAGMan."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from tests.pool.dag import Dag
from tests.pool.lab import Lab

from htlease_dagman.scripts.invocation import DEFER
from htlease_lab.pool import PoolError


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


def wait_ran(dag: Dag, line: str, count: int = 1) -> None:
    what = f"{line!r} in {dag.directory}/ran"
    try:
        dag.lab.wait_for(lambda: dag.ran.count(line) >= count, what, 60)
    except PoolError as error:
        raise AssertionError(f"{error}\n{dag.ran}\n{dag.explain()}") from None


def jobs_submitted(dag: Dag) -> int:
    return len(dag.lab.pool.events(dag.directory / "job.log", 0))


def starts(lab: Lab, dag: Dag, node: str, phase: str) -> int:
    """Return how often a phase's payload was started, by all tries of the node."""
    return len(lab.witness.notes(dag.key(node), "start", phase))


def hold_dagman(dag: Dag) -> None:
    """Put DAGMan's own job on hold, which ends it and its scripts, and release it."""
    pool = dag.lab.pool
    pool.hold(dag.job)
    dag.lab.wait_for(lambda: not dag.dagman(), "DAGMan to be gone", 60)
    pool.release(dag.job)


@pytest.mark.parametrize("break_down", [Dag.kill_dagman, Dag.kill_schedd, hold_dagman])
def test_scripts_cut_off_in_pre_job_and_post_start_again_and_each_acts_once(
    lab: Lab, break_down: Callable[[Dag], None]
) -> None:
    dag = Dag(
        lab,
        "killed",
        ["JOB A job.sub"],
        scripts={"A": {"pre": ["wait.sh", "pre"], "post": ["wait.sh", "post", "$RETURN"]}},
        behaviour={"block": {"compute": [1]}, "block_seconds": 12},
    )
    dag.submit()
    wait_ran(dag, "begin pre")
    break_down(dag)
    wait_ran(dag, "begin pre", count=2)
    dag.let_go("pre")
    lab.wait_for(lambda: starts(lab, dag, "A", "compute"), "the job to compute", 60)
    break_down(dag)
    wait_ran(dag, "begin post 0")
    break_down(dag)
    wait_ran(dag, "begin post 0", count=2)
    dag.let_go("post")
    assert dag.wait() == 0, dag.explain()
    # Whoever was killed had not come to its end; of those that had, there is one each.
    assert [line for line in dag.ran if line.startswith("end")] == ["end pre", "end post 0"]
    assert closings(lab, dag, "A") == ["committed complete"]
    assert jobs_submitted(dag) == 1
    assert (starts(lab, dag, "A", "register"), starts(lab, dag, "A", "compute")) == (1, 1)


def test_a_post_script_killed_under_dagman_fails_its_node_and_the_next_run_repairs_it(
    lab: Lab,
) -> None:
    dag = Dag(
        lab,
        "killed-post",
        ["JOB A job.sub"],
        scripts={"A": {"post": ["wait.sh", "post", "$RETURN"]}},
    )
    dag.submit()
    wait_ran(dag, "begin post 0")
    [post] = dag.processes("post", "A")
    for process in lab.pool.family(post):
        process.send(signal.SIGKILL)
    assert dag.wait() != 0
    assert closings(lab, dag, "A") == []
    dag.let_go("post")
    dag.submit()
    assert dag.wait() == 0, dag.explain()
    assert dag.ran == ["begin post 0", "begin post 0", "end post 0"]
    assert closings(lab, dag, "A") == ["committed complete"]
    assert starts(lab, dag, "A", "register") == 1


def test_of_several_post_at_once_one_acts_and_the_others_exit_the_same_way(lab: Lab) -> None:
    dag = Dag(
        lab,
        "several",
        ["JOB A job.sub"],
        scripts={"A": {"post": ["wait.sh", "post", "$RETURN"]}},
    )
    dag.submit()
    wait_ran(dag, "begin post 0")
    argv, environ = dag.post_call("A")
    again = [lab.pool.run(argv, cwd=dag.directory, env=environ, check=False) for _ in range(2)]
    assert [done.returncode for done in again] == [DEFER, DEFER]
    dag.let_go("post")
    assert dag.wait() == 0, dag.explain()
    again = [lab.pool.run(argv, cwd=dag.directory, env=environ, check=False) for _ in range(2)]
    assert [done.returncode for done in again] == [0, 0]
    assert dag.ran == ["begin post 0", "end post 0"]
    assert closings(lab, dag, "A") == ["committed complete"]


def test_scripts_without_a_server_defer_then_fail_and_the_rescue_dag_repairs(lab: Lab) -> None:
    dag = Dag(
        lab,
        "away",
        ["JOB A job.sub", "JOB B job.sub", "PARENT A CHILD B"],
        scripts={"A": {"post": ["wait.sh", "post"]}},
        deferrals_max=2,
        wait_server_seconds=1,
    )
    dag.submit()
    wait_ran(dag, "begin post")
    lab.server.stop(signal.SIGKILL)
    dag.let_go("post")
    assert dag.wait() != 0
    assert "gives up after 2 times" in dag.script_output("POST", "A")
    dag.submit()  # the server is still away: now PRE is the one that fails
    assert dag.wait() != 0
    assert "gives up after 2 times" in dag.script_output("PRE", "A")
    lab.server.start()
    dag.submit()
    assert dag.wait() == 0, dag.explain()
    assert [closings(lab, dag, node) for node in "AB"] == [["committed complete"]] * 2
    assert starts(lab, dag, "A", "register") == 1


def test_a_server_that_comes_back_in_time_is_not_noticed(lab: Lab) -> None:
    dag = Dag(
        lab,
        "back",
        ["JOB A job.sub"],
        scripts={"A": {"pre": ["wait.sh", "pre"]}},
        wait_server_seconds=1,
    )
    lab.server.stop(signal.SIGKILL)
    dag.submit()
    lab.wait_for(lambda: "later (1" in dag.script_output("PRE", "A"), "PRE to be put off", 60)
    dag.kill_dagman()  # a script that was put off is due at once to the next DAGMan
    lab.wait_for(lambda: "later (2" in dag.script_output("PRE", "A"), "PRE to be put off", 60)
    lab.server.start()
    dag.let_go("pre")
    assert dag.wait() == 0, dag.explain()
    assert closings(lab, dag, "A") == ["committed complete"]


def test_a_failed_job_is_retried_and_its_once_phase_is_not(lab: Lab) -> None:
    dag = Dag(
        lab, "retry", ["JOB A job.sub", "RETRY A 1"], behaviour={"exit": {"compute": {"1": 5}}}
    )
    dag.submit()
    assert dag.wait() == 0, dag.explain()
    assert closings(lab, dag, "A") == ["settled failed", "committed complete"]
    assert (starts(lab, dag, "A", "register"), starts(lab, dag, "A", "compute")) == (1, 2)
    assert jobs_submitted(dag) == 2


def test_the_jobs_exit_status_reaches_abort_dag_on(lab: Lab) -> None:
    dag = Dag(
        lab,
        "abort",
        ["JOB A job.sub", "RETRY A 3", "ABORT-DAG-ON A 5 RETURN 1"],
        behaviour={"exit": {"compute": {"1": 5}}},
    )
    dag.submit()
    assert dag.wait() == 1
    assert closings(lab, dag, "A") == ["settled failed"]
    dag.submit()
    assert dag.wait() == 0, dag.explain()
    assert starts(lab, dag, "A", "register") == 1


def test_a_removed_dag_goes_on_when_it_is_submitted_again(lab: Lab) -> None:
    dag = Dag(
        lab,
        "removed",
        ["JOB A job.sub"],
        scripts={"A": {"hold": ["wait.sh", "hold", "$JOBID"]}},
        behaviour={"block": {"compute": [1, 2]}},
    )
    dag.let_go("hold")
    dag.submit()
    lab.wait_for(lambda: starts(lab, dag, "A", "compute"), "the job to compute", 60)
    [job] = {event.cluster for event in lab.pool.events(dag.directory / "job.log", 0)}
    lab.pool.hold(f"{job}.0")
    wait_ran(dag, f"end hold {job}.0")
    assert f'"job": "{job}.0"' in (dag.directory / "d.htlease.d/holds.jsonl").read_text()
    lab.pool.release(f"{job}.0")
    lab.wait_for(lambda: starts(lab, dag, "A", "compute") == 2, "the job to compute again", 60)
    lab.pool.remove(dag.job)
    dag.wait()
    dag.submit()
    assert dag.wait() == 0, dag.explain()
    assert closings(lab, dag, "A")[-1] == "committed complete"
    assert (starts(lab, dag, "A", "register"), starts(lab, dag, "A", "compute")) == (1, 3)


def test_vacate_schedd_crash_and_server_crash_change_nothing(lab: Lab) -> None:
    dag = Dag(
        lab,
        "crashes",
        ["JOB A job.sub"],
        behaviour={"block": {"compute": [1, 2]}, "block_seconds": 20},
    )
    dag.submit()
    lab.wait_for(lambda: starts(lab, dag, "A", "compute"), "the job to compute", 60)
    [job] = {event.cluster for event in lab.pool.events(dag.directory / "job.log", 0)}
    lab.pool.vacate(f"{job}.0")
    lab.wait_for(lambda: starts(lab, dag, "A", "compute") == 2, "the job to compute again", 60)
    lab.server.stop(signal.SIGKILL)
    dag.kill_schedd()
    lab.server.start()
    assert dag.wait() == 0, dag.explain()
    assert closings(lab, dag, "A") == ["committed complete"]
    assert starts(lab, dag, "A", "register") == 1


def test_the_lease_of_a_job_that_died_unheard_is_freed_by_what_the_history_says(lab: Lab) -> None:
    dag = Dag(
        lab,
        "unheard",
        ["JOB A job.sub"],
        behaviour={"block": {"compute": [1]}},
        job_ttl_seconds=3600,
    )
    dag.submit()
    lab.wait_for(lambda: starts(lab, dag, "A", "compute"), "the job to compute", 60)
    [job] = {event.cluster for event in lab.pool.events(dag.directory / "job.log", 0)}
    _, *payload = lab.pool.family(lab.pool.starter(f"{job}.0"))
    for process in payload:
        process.send(signal.SIGKILL)
    assert dag.wait() != 0
    assert [
        event["exit_signal"] for event in lab.server.events(dag.key("A"), "attempt-exited")
    ] == [9]
    assert closings(lab, dag, "A") == ["settled failed"]
