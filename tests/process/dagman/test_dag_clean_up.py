"""The scripts of a staging workflow's clean-up as processes against a real server."""

from __future__ import annotations

import os

import pytest
from tests.process.dag_node import DagNode

from htlease_dagman.scripts.clean_up import FAILED, STAGE_IN
from htlease_dagman.scripts.invocation import SKIP

DAG_OK, NODE_FAILED, ABORTED = 0, 2, 3


@pytest.fixture
def clean_up(node: DagNode) -> DagNode:
    node.settings |= {"nodes": {"A": {"kind": "clean-up"}}, "needs_submission": True}
    return node


def end_stage_in(node: DagNode, outcome: str) -> None:
    nonce = os.urandom(16).hex()

    def ask(call: str, **body: object) -> dict[str, object]:
        path = f"workflows/{node.workflow}/subjobs/{STAGE_IN}/{call}"
        sent = {"request_id": os.urandom(8).hex(), "nonce": nonce, **body}
        status, answer = node.server.ask_as(node.server.admin_token, path, sent)
        assert status == 200, answer
        return dict(answer)

    fence = ask("acquire", kind="operator", global_job_id=f"s{node.cluster}")["fence"]
    ask("settle", fence=fence, outcome=outcome)


@pytest.mark.parametrize(
    ("outcome", "dag_status", "status"),
    [
        (None, DAG_OK, SKIP),
        ("complete", DAG_OK, SKIP),
        (None, NODE_FAILED, FAILED),
        ("complete", NODE_FAILED, FAILED),
        ("failed", ABORTED, FAILED),
        ("failed", NODE_FAILED, 0),
    ],
)
def test_only_a_stage_in_that_has_failed_leaves_a_mess(
    clean_up: DagNode, outcome: str | None, dag_status: int, status: int
) -> None:
    if outcome is not None:
        end_stage_in(clean_up, outcome)
    done, said = clean_up.run("pre", DAG_STATUS=dag_status)
    assert done == status, said
    assert clean_up.token_file("A").exists() == (status == 0)


def test_it_is_done_once_for_each_submission_of_the_dag(clean_up: DagNode) -> None:
    end_stage_in(clean_up, "failed")
    assert clean_up.run("pre", DAG_STATUS=NODE_FAILED)[0] == 0
    clean_up.do_job(restart="once")
    assert clean_up.subjob["outcome"] == "complete"
    assert clean_up.run("post")[0] == FAILED

    clean_up.dag_job(clean_up.cluster, starts=1)
    status, said = clean_up.run("pre", DAG_STATUS=NODE_FAILED)
    assert status == FAILED
    assert "complete already in this submission of the DAG" in said
    assert clean_up.run("post")[0] == FAILED

    clean_up.dag_job(200)
    end_stage_in(clean_up, "failed")
    assert clean_up.run("pre", DAG_STATUS=NODE_FAILED)[0] == 0
    assert clean_up.subjob["outcome"] is None
    clean_up.do_job(1, restart="once")
    assert clean_up.run("post")[0] == FAILED


@pytest.mark.parametrize(("returned", "outcome"), [(0, "complete"), (4, "failed"), (-9, "failed")])
def test_a_clean_up_without_a_lease_is_settled_by_its_exit(
    clean_up: DagNode, returned: int, outcome: str
) -> None:
    end_stage_in(clean_up, "failed")
    assert clean_up.run("pre", DAG_STATUS=NODE_FAILED)[0] == 0
    status, said = clean_up.run("post", RETURN=returned)
    assert status == FAILED
    assert "submit the DAG again" in said
    assert clean_up.subjob["outcome"] == outcome
    assert clean_up.run("pre", DAG_STATUS=NODE_FAILED)[0] == FAILED


def test_a_node_that_failed_stays_so_until_the_dag_is_submitted_again(node: DagNode) -> None:
    node.settings["needs_submission"] = True
    assert node.run("pre")[0] == 0
    node.do_job(is_done=False)
    assert node.run("post", RETURN=4)[0] == 4
    node.dag_job(node.cluster, starts=1)
    status, said = node.run("pre")
    assert (status, node.subjob["outcome"]) == (1, "failed"), said
    node.dag_job(200)
    assert node.run("pre")[0] == 0
    assert node.subjob["outcome"] is None
