"""POST and HOLD scripts as processes against a real server."""

from __future__ import annotations

import signal

import pytest
from tests.process.dag_node import DagNode, NewNode, ended
from tests.process.execution import wait_for
from tests.serving import ServerProcess

from htlease_dagman.scripts.invocation import DEFER, SKIP


def test_post_commits_what_is_complete(node: DagNode) -> None:
    node.run("pre")
    node.do_job()
    assert node.run("post")[0] == 0
    assert node.closings == [("committed", "complete")]


def test_a_job_that_exited_0_without_completing_its_phases_has_failed(node: DagNode) -> None:
    node.run("pre")
    node.do_job(is_done=False)
    status, said = node.run("post")
    assert status == 1
    assert "not complete: run" in said
    assert node.closings == [("settled", "failed")]
    reason = node.server.events(node.key, "subjob-closed")[0]["reason"]
    assert "retry 1 of 1 may follow" in reason


def test_exit_0_completes_a_job_without_phases_whose_end_nobody_has_recorded(
    node: DagNode,
) -> None:
    """As under starter hooks of HTCondor 25.4 and later, where no JOB_EXIT hook runs."""
    node.run("pre")
    node.do_job(restart="resume", is_done=False)
    status, said = node.run("post")
    assert (status, said) == (0, "htlease post A: exit 0 (commit)\n")
    assert node.closings == [("committed", "complete")]
    assert [phase["completed_fence"] for phase in node.subjob["phases"]] == [3]


def test_exit_0_completes_several_jobs_without_phases(node: DagNode) -> None:
    node.settings["nodes"]["A"] = {"jobs": 2}
    node.run("pre")
    for number in range(2):
        node.do_job(restart="resume", is_done=False, subjob=f"A.{number}")
    assert node.run("post")[0] == 0
    outcomes = [node.server.subjob(f"{node.workflow}/{n}")["outcome"] for n in ("A", "A.0", "A.1")]
    assert outcomes == ["complete"] * 3


@pytest.mark.parametrize(
    ("returned", "is_told"),
    [(4, 4), (DEFER, 1), (-9, 137), (-1002, 1)],
)
def test_a_failed_job_fails_its_node_with_its_own_status(
    node: DagNode, returned: int, is_told: int
) -> None:
    node.run("pre")
    node.do_job(is_done=False)
    assert node.run("post", RETURN=returned)[0] == is_told
    assert node.closings == [("settled", "failed")]


@pytest.mark.parametrize(("returned", "outcome"), [(0, "complete"), (2, "failed")])
def test_without_wrapper_and_hooks_the_jobs_exit_decides(
    node: DagNode, returned: int, outcome: str
) -> None:
    node.run("pre")
    status, said = node.run("post", RETURN=returned)
    assert status == returned, said
    assert node.closings == [("settled", outcome)]


def test_a_job_that_was_superseded_is_no_failure(node: DagNode) -> None:
    node.run("pre")
    fence = node.acquire()
    node.job("abandon", fence=fence)
    fence = node.acquire(5)  # another job, a routed copy perhaps
    node.job("abandon", 5, fence=fence)
    status, said = node.run("post", RETURN=76)
    assert (status, f"waits for {node.job_id(5)}" in said) == (DEFER, True)
    node.do_job(6)
    assert node.run("post", RETURN=76)[0] == 0


def test_nobody_is_waited_for_when_a_superseded_job_was_the_last(node: DagNode) -> None:
    node.run("pre")
    node.do_job(is_done=False)
    assert node.run("post", RETURN=76)[0] == 76
    assert node.closings == [("settled", "failed")]


def test_post_of_an_overtaken_try_waits_for_the_later_one(node: DagNode) -> None:
    node.settings["deferrals_max"] = 1
    node.run("pre")
    node.do_job(is_done=False)
    old_dag = node.cluster
    node.dag_job(200)
    node.run("pre")
    node.do_job(5)
    node.dag_job(old_dag)
    assert node.run("post", RETURN=1)[0] == DEFER
    node.dag_job(200)
    assert node.run("post")[0] == 0
    node.dag_job(old_dag)
    assert node.run("post", RETURN=1)[0] == 0
    assert node.closings == [("committed", "complete")]


def test_post_waits_for_the_lease_of_a_job_that_died_unheard(node: DagNode) -> None:
    node.run("pre")
    node.acquire(ttl_seconds=4)
    assert node.run("post", RETURN=-1002)[0] == DEFER
    wait_for(lambda: node.run("post", RETURN=-1002)[0] == 1, "the lease to end")
    assert node.closings == [("settled", "failed")]


@pytest.mark.parametrize("restart", ["redo", "once"])
@pytest.mark.parametrize("user_exits", [0, 3])
def test_of_three_post_one_acts_and_all_exit_the_same_way(
    node: DagNode, restart: str, user_exits: int
) -> None:
    node.chain("post", f"while [ ! -e go ]; do sleep 0.05; done\nexit {user_exits}", "$RETURN")
    node.run("pre")
    node.do_job(restart=restart)
    first = node.start("post")
    wait_for(lambda: node.ran, "the user's script to run")
    assert [node.run("post")[0] for _ in range(2)] == [DEFER, DEFER]
    (node.directory / "go").touch()
    assert ended(node, first) == [user_exits]
    assert [node.run("post")[0] for _ in range(2)] == [user_exits] * 2
    assert node.ran == ["post 0"]
    assert len(node.closings) == 1


def test_the_users_post_script_may_take_a_failed_job_for_success(node: DagNode) -> None:
    node.chain("post", "exit 0", "$RETURN")
    node.run("pre")
    node.do_job(is_done=False)
    assert node.run("post", RETURN=5)[0] == 0
    assert node.ran == ["post 5"]
    assert node.closings == [("settled", "complete")]


def test_the_users_post_script_runs_once_though_the_server_is_away_after_it(
    new_node: NewNode, own_server: ServerProcess
) -> None:
    node = new_node(own_server)
    node.settings["wait_server_seconds"] = 3
    node.chain("post", "touch ran-once; while [ ! -e go ]; do sleep 0.05; done")
    node.run("pre")
    node.do_job()
    first = node.start("post")
    wait_for((node.directory / "ran-once").exists, "the user's script to run")
    own_server.stop(signal.SIGKILL)
    (node.directory / "go").touch()
    assert ended(node, first) == [DEFER]
    own_server.start()
    assert node.run("post")[0] == 0
    assert node.ran == ["post"]
    assert node.closings == [("committed", "complete")]


def test_a_post_script_that_failed_on_a_complete_subjob_runs_again_in_the_next_try(
    node: DagNode,
) -> None:
    node.chain("post", "[ -e mended ]")
    node.run("pre")
    node.do_job(restart="once")
    assert node.run("post")[0] == 1
    status, said = node.run("pre", retry=1)
    assert (status, "only looks in" in said) == (0, True)
    (node.directory / "mended").touch()
    assert node.run("post", retry=1)[0] == 0
    node.dag_job(200)
    assert node.run("pre")[0] == SKIP


def test_post_goes_on_at_once_after_one_that_was_killed(node: DagNode) -> None:
    node.settings["ttl_seconds"] = 600
    node.chain("post", "[ -e go ] || sleep 30")
    node.run("pre")
    node.do_job()
    first = node.start("post")
    wait_for(lambda: node.ran, "the user's script to run")
    first.kill()
    first.wait()
    (node.directory / "go").touch()
    node.dag_job(100, starts=1)
    assert node.run("post")[0] == 0
    assert node.ran == ["post", "post"]
    assert node.closings == [("committed", "complete")]


def test_a_long_script_of_the_users_keeps_its_lease(node: DagNode) -> None:
    node.settings["ttl_seconds"] = 1
    node.chain("post", "sleep 3")
    node.run("pre")
    node.do_job()
    assert node.run("post")[0] == 0
    assert node.closings == [("committed", "complete")]


def test_a_users_script_that_cannot_be_started_fails_the_node(node: DagNode) -> None:
    node.settings["nodes"]["A"] = {"post": ["missing.sh"]}
    node.run("pre")
    node.do_job()
    status, said = node.run("post")
    assert status == 127
    assert "./missing.sh: No such file" in said


def test_a_server_that_was_set_up_anew_takes_dagmans_word(node: DagNode) -> None:
    assert node.run("post")[0] == 0
    assert node.closings == [("settled", "complete")]


# Nodes of several jobs


def test_a_node_of_several_jobs_is_complete_when_all_of_them_are(node: DagNode) -> None:
    node.settings["nodes"]["A"] = {"jobs": 2}
    assert node.run("pre")[0] == 0
    node.do_job(subjob="A.0")
    node.do_job(subjob="A.1", is_done=False)
    status, said = node.run("post", RETURN=3)
    assert status == 3, said
    outcomes = [node.server.subjob(f"{node.workflow}/{n}")["outcome"] for n in ("A", "A.0", "A.1")]
    assert outcomes == ["failed", "complete", "failed"]
    assert node.run("pre", retry=1)[0] == 0
    node.do_job(1, subjob="A.1")
    assert node.run("post", retry=1)[0] == 0
    outcomes = [node.server.subjob(f"{node.workflow}/{n}")["outcome"] for n in ("A", "A.0", "A.1")]
    assert outcomes == ["complete"] * 3
    node.dag_job(200)
    assert node.run("pre")[0] == SKIP


def test_several_jobs_without_wrapper_are_judged_by_their_exit(node: DagNode) -> None:
    node.settings["nodes"]["A"] = {"jobs": 2}
    node.run("pre")
    assert node.run("post", RETURN=0)[0] == 0
    assert node.closings == [("settled", "complete")]


# Settings


def test_what_is_wrong_with_the_settings_is_said_without_a_traceback(node: DagNode) -> None:
    (node.directory / "workflow.token").unlink()
    status, said = node.run("pre")
    assert status == 1
    assert "workflow.token" in said and "htlease dag instrument" in said
    del node.settings["server"]
    status, said = node.run("pre")
    assert (status, "Traceback" in said) == (1, False)
    assert "d.htlease.json: has no 'server'" in said


def test_hold_notes_the_job_and_runs_the_users_script(node: DagNode) -> None:
    node.chain("hold", "exit 0", "$JOBID")
    assert node.run("hold")[0] == 0
    assert '"job": "101.0"' in (node.directory / "d.htlease.d" / "holds.jsonl").read_text()
    assert node.ran == ["hold 101.0"]


def test_post_that_nothing_names_leaves_a_living_job_alone(node: DagNode) -> None:
    node.run("pre")
    node.acquire()
    before = node.subjob
    node.has_ad = False
    for returned in (0, 3):
        status, said = node.run("post", RETURN=returned)
        assert status == 1, said
        assert "$_CONDOR_JOB_AD" in said
    after = node.subjob
    assert after["status"] == "active"
    for name in ("epoch", "submissions", "attempts"):
        assert after[name] == before[name]


def test_without_a_job_ad_pre_and_post_still_belong_together(node: DagNode) -> None:
    node.has_ad = False
    node.run("pre")
    node.do_job()
    assert node.run("post")[0] == 0
