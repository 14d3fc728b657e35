"""PRE scripts as processes against a real server."""

from __future__ import annotations

import signal
import stat

import pytest
from tests.process.dag_node import DagNode, NewNode, ended
from tests.process.execution import wait_for
from tests.serving import ServerProcess

from htlease_dagman.scripts.invocation import DEFER, SKIP


def test_pre_announces_the_try_and_leaves_a_token_that_only_its_owner_can_read(
    node: DagNode,
) -> None:
    assert node.run("pre") == (0, "")
    [submission] = node.subjob["submissions"]
    assert (submission["epoch"], submission["retry"]) == (1, 0)
    assert stat.S_IMODE(node.job_token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(node.job_token_file.parents[2].stat().st_mode) == 0o700
    node.do_job()
    assert [one["global_job_id"] for one in node.subjob["submissions"]][1:] == [node.job_id()]


def test_the_token_of_pre_is_for_its_node_alone(node: DagNode) -> None:
    node.run("pre")
    token = node.job_token_file.read_text().strip()
    body = {"request_id": "r1", "nonce": "another-nodes-nonce"}
    path = f"workflows/{node.workflow}/subjobs/B/acquire"
    assert node.server.ask_as(token, path, body)[0] == 403


def test_pre_of_the_same_try_again_changes_nothing(node: DagNode) -> None:
    node.chain("pre", "exit 0")
    assert node.run("pre")[0] == 0
    node.dag_job(100, starts=1)  # DAGMan was started again
    before = node.server.history(node.key)
    assert node.run("pre")[0] == 0
    assert node.server.history(node.key) == before
    assert node.ran == ["pre"]


def test_retries_and_rescues_are_later_submissions(node: DagNode) -> None:
    node.run("pre")
    node.do_job(0, is_done=False)
    assert node.run("post", RETURN=1)[0] == 1
    assert node.run("pre", retry=1)[0] == 0
    node.do_job(1, is_done=False)
    assert node.run("post", retry=1, RETURN=1)[0] == 1
    node.dag_job(200)
    assert node.run("pre", retry=0)[0] == 0
    epochs = [(one["epoch"], one["retry"]) for one in node.subjob["submissions"]]
    assert epochs == [(1, 0), (2, None), (3, 1), (4, None), (5, 0)]
    assert node.subjob["status"] == "waiting"  # open again, and nobody is at work


def test_pre_skips_a_complete_node_in_every_later_run(node: DagNode) -> None:
    node.run("pre")
    node.do_job()
    assert node.run("post")[0] == 0
    before = node.server.history(node.key)
    node.dag_job(200)
    status, said = node.run("pre")
    assert (status, "complete already" in said) == (SKIP, True)
    assert node.server.history(node.key) == before


def test_pre_waits_for_an_older_job_by_deferring(node: DagNode) -> None:
    node.run("pre")
    fence = node.acquire(ttl_seconds=2)
    node.dag_job(200)  # everything was removed but this job, which still runs somewhere
    assert node.run("pre")[0] == DEFER
    assert node.job("renew", fence=fence)["order"] == "stop"
    wait_for(lambda: node.run("pre")[0] == 0, "the old lease to end")


def test_pre_of_a_dag_that_is_not_the_last_fails(node: DagNode) -> None:
    node.dag_job(200)
    node.run("pre")
    node.dag_job(300)
    assert node.run("pre")[0] == 0
    node.dag_job(200, starts=1)
    for note in node.directory.glob("d.htlease.d/pre/A"):
        note.unlink()  # as on another access point
    status, said = node.run("pre")
    assert status == 1
    assert "not the last that was submitted" in said


def test_of_two_pre_one_acts(node: DagNode) -> None:
    node.chain("pre", "while [ ! -e go ]; do sleep 0.05; done")
    first = node.start("pre")
    wait_for(lambda: node.ran, "the user's script to run")
    assert node.run("pre")[0] == DEFER
    (node.directory / "go").touch()
    assert ended(node, first) == [0]
    assert node.run("pre")[0] == 0
    assert node.ran == ["pre"]


def test_pre_goes_on_at_once_after_one_that_was_killed(node: DagNode) -> None:
    node.settings["ttl_seconds"] = 600
    node.chain("pre", "[ -e go ] || sleep 30")
    first = node.start("pre")
    wait_for(lambda: node.ran, "the user's script to run")
    first.kill()
    first.wait()
    (node.directory / "go").touch()
    node.dag_job(100, starts=1)
    assert node.run("pre")[0] == 0
    assert node.ran == ["pre", "pre"]
    assert len(node.server.events(node.key, "lease-acquired")) == 1


@pytest.mark.parametrize(
    ("user_exits", "is_told", "status"),
    [
        (3, 3, "failed"),
        (9, SKIP, "complete"),
        (7, DEFER, "waiting"),
        (DEFER, 1, "failed"),
        (SKIP, 1, "failed"),
    ],
)
def test_the_users_pre_script_decides_as_it_would_alone(
    node: DagNode, user_exits: int, is_told: int, status: str
) -> None:
    node.chain("pre", f"exit {user_exits}", "$JOB", "x$RETRY", "$RETRY", pre_skip=9, pre_defer=7)
    assert node.run("pre")[0] == is_told
    assert node.ran == ["pre A x$RETRY 0"]
    assert node.subjob["status"] == status


def test_a_users_script_that_asks_for_later_is_not_counted(node: DagNode) -> None:
    node.settings["deferrals_max"] = 1
    node.chain("pre", "exit 7", pre_defer=7)
    assert [node.run("pre")[0] for _ in range(3)] == [DEFER] * 3


def test_without_a_server_pre_defers_and_then_fails_with_what_to_do(
    new_node: NewNode, own_server: ServerProcess
) -> None:
    node = new_node(own_server)
    node.settings |= {"deferrals_max": 2, "wait_server_seconds": 0.5}
    own_server.stop(signal.SIGKILL)
    assert [node.run("pre")[0] for _ in range(2)] == [DEFER, DEFER]
    status, said = node.run("pre")
    assert status == 1
    assert "gives up after 2 times" in said
    assert "submit the DAG again" in said
    own_server.start()
    node.dag_job(200)  # the rescue DAG
    assert node.run("pre")[0] == 0
    node.do_job()
    assert node.run("post")[0] == 0


def test_a_server_that_hangs_is_waited_for_for_a_bounded_time(
    new_node: NewNode, own_server: ServerProcess
) -> None:
    node = new_node(own_server)
    node.settings["wait_server_seconds"] = 0.5
    own_server.signal(signal.SIGSTOP)
    assert node.run("pre")[0] == DEFER
    node.settings["wait_server_seconds"] = 10
    own_server.signal(signal.SIGCONT)
    assert node.run("pre")[0] == 0


def test_what_was_cancelled_goes_on_when_the_dag_is_submitted_again(node: DagNode) -> None:
    node.run("pre")
    node.server.command(node.key, "cancel", reason="removed with the DAG")
    status, said = node.run("pre", retry=1)
    assert status == 1
    assert "cancelled while this DAG was running" in said
    node.dag_job(200)
    assert node.run("pre")[0] == 0
    assert node.subjob["outcome"] is None


def test_a_node_that_the_users_pre_script_skipped_stays_skipped(node: DagNode) -> None:
    node.chain("pre", "exit 9", pre_skip=9)
    node.chain("post", "exit 0")
    assert node.run("pre")[0] == SKIP
    node.dag_job(200)
    assert node.run("pre")[0] == SKIP
    assert node.ran == ["pre"]


def test_a_final_node_runs_again_in_every_run(node: DagNode) -> None:
    node.settings["nodes"]["A"] = {"kind": "final"}
    for cluster in (100, 200):
        node.dag_job(cluster)
        assert node.run("pre")[0] == 0
        node.do_job(cluster)
        assert node.run("post")[0] == 0
    assert node.closings == [("committed", "complete")] * 2
