"""`htlease dag status` against a server, without any schedd."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from tests.process.command import htlease
from tests.process.dag_node import DagNode
from tests.process.execution import wait_for
from tests.serving import ServerProcess

from htlease_cli.dag.status import NEEDS_A_PERSON, UNDER_WAY

STRUCTURE = {
    "dag_sha256": "abc",
    "nodes": {"A": "job", "B": "job", "C": "job", "inner": "subdag", "P": "provisioner"},
    "dependencies": [{"parents": ["A"], "children": ["B", "inner"]}],
    "sub_dags": {"inner": "status-inner"},
}


def put(server: ServerProcess, name: str, **fields: object) -> None:
    server.ask("PUT", f"workflows/{name}", {"request_id": name, **fields})


def test_a_dag_is_shown_with_what_its_nodes_wait_for(server: ServerProcess, tmp_path: Path) -> None:
    put(server, "status-outer", structure=STRUCTURE, labels={"dag": "outer.dag"})
    put(server, "status-inner", structure={"nodes": {"X": "job"}}, labels={"dag": "inner.dag"})
    node = DagNode(tmp_path / "dag", server, "status-outer")
    node.run("pre")
    fence = node.acquire(ttl_seconds=600)
    server.command("status-outer/C", "enroll", global_job_id="dag#1/0", retry=0)
    server.command(
        "status-outer/C",
        "observed",
        global_job_id="ap1#99.0#1",
        what="held",
        by="user",
        reason="quota",
        code=1,
    )
    shown = htlease(server, "dag", "status", "status-outer", status=UNDER_WAY)
    lines = shown.splitlines()
    assert lines[1].split()[:3] == ["outer.dag", "running", "0/4"]
    assert lines[2].startswith("  inner: inner.dag")
    assert all(len(line) <= 80 for line in lines[:3])
    assert "\x1b" not in shown
    rows = {line.split()[0]: " ".join(line.split()) for line in lines if line}
    assert rows["A"].startswith("A running run 1 1")
    assert rows["C"].endswith("held by its user: quota (hold code 1)")
    assert "B" not in rows, "its parent is not complete"

    node.job("phases/run/complete", fence=fence)
    node.job("exited", fence=fence, exit_code=0)
    assert node.run("post")[0] == 0
    document = json.loads(
        htlease(server, "dag", "status", "status-outer", "--json", status=NEEDS_A_PERSON)
    )["dags"][0]
    assert document["counts"] == {"done": 1, "waiting": 2, "held": 1}
    inner = document["sub_dags"][0]
    assert (inner["node"], inner["counts"]) == ("inner", {"not ready": 1})


def test_who_follows_a_dag_sees_it_change_and_end(server: ServerProcess, tmp_path: Path) -> None:
    put(server, "status-followed", structure={"nodes": {"A": "job"}})
    node = DagNode(tmp_path / "dag", server, "status-followed")
    node.run("pre")
    node.do_job()
    shown = tmp_path / "shown"

    def settle() -> None:
        wait_for(lambda: shown.exists() and "0/1" in shown.read_text(), "the first look")
        node.run("post")

    thread = threading.Thread(target=settle)
    thread.start()
    htlease(server, "dag", "status", "status-followed", "--follow", stdout=shown)
    thread.join()
    looks = [line.split()[1:3] for line in shown.read_text().splitlines() if "/1" in line]
    assert looks == [["waiting", "0/1"], ["complete", "1/1"]]


def test_who_follows_a_dag_is_there_between_retries(server: ServerProcess, tmp_path: Path) -> None:
    put(server, "status-retried", structure={"nodes": {"A": "job"}})
    node = DagNode(tmp_path / "dag", server, "status-retried")
    node.run("pre")
    node.do_job(is_done=False)
    assert node.run("post", RETURN=5)[0] == 5
    shown = tmp_path / "shown"

    def try_again() -> None:
        wait_for(lambda: shown.exists() and "waiting" in shown.read_text(), "the first look")
        node.run("pre", retry=1)
        node.do_job(1)
        node.run("post", retry=1)

    thread = threading.Thread(target=try_again)
    thread.start()
    htlease(server, "dag", "status", "status-retried", "--follow", stdout=shown)
    thread.join()
    assert "1/1" in shown.read_text()


def test_a_dag_file_stands_for_its_workflow_and_a_wrong_name_is_told(
    server: ServerProcess, tmp_path: Path
) -> None:
    dag = tmp_path / "d.dag"
    dag.write_text("JOB A a.sub\n")
    said = htlease(server, "dag", "status", dag, status=78)
    assert "is not instrumented" in said
    put(server, "status-file", structure={"nodes": {"A": "job"}})
    settings = {"version": 1, "workflow": "status-file", "dag": str(dag)}
    (tmp_path / "d.dag.htlease.json").write_text(json.dumps(settings))
    assert "0/1" in htlease(server, "dag", "status", dag, status=UNDER_WAY)
    assert "no such DAG file" in htlease(server, "dag", "status", "e.dag", status=78)
    assert "no workflow nowhere" in htlease(server, "dag", "status", "nowhere", status=1)
