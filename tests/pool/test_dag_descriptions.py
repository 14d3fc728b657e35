"""A node whose list of items has a blank line: DAGMan makes a job of it, and it has its own key."""

from __future__ import annotations

import os

import pytest
from tests.condor_submit import CondorSubmit
from tests.pool.dag_instrumented import Instrumented
from tests.pool.lab import Lab

JOB = """\
executable = htlease-ep.pyz
arguments = "run --server {server} --ttl 10 -- /bin/echo '<$(letter)>'"
should_transfer_files = YES
transfer_output_files = ""
request_cpus = 1
request_memory = 16
request_disk = 1
output = out.$(ProcId)
error = err.$(ProcId)
log = job.log
queue letter from items.list
"""


def test_a_blank_item_is_a_job_and_its_node_ends(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = os.environ.get("HTLEASE_POOL_SUITE", "trixie")
    native = CondorSubmit(suite, lab.pool.work_dir)
    monkeypatch.setenv("PATH", native.environment({})["PATH"])
    dag = Instrumented(
        lab,
        "blank-item",
        ["JOB A items.sub"],
        files={
            "items.sub": JOB.format(server=lab.server.url),
            "items.list": "a\nb\n\n",
        },
    )
    dag.submit()
    assert dag.wait(240) == 0, dag.explain()
    for job in ("A", "A.0", "A.1", "A.2"):
        document = lab.server.ask("GET", f"workflows/{dag.workflow}/subjobs/{job}")
        assert document["status"] == "complete", (job, document)
    assert {(dag.directory / f"out.{n}").read_text() for n in range(2)} == {"<a>\n", "<b>\n"}
