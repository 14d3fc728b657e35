"""An attempt that HTCondor gave up but that is still alive can write nothing."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.pool.lab import Lab, TestJob

from htlease_lab.pool.processes import Process


def refused_writes(job: TestJob, fence: int) -> list[dict[str, object]]:
    return [
        event
        for event in job.history()
        if event["event"] == "write-refused" and event["fence"] == fence
    ]


@pytest.mark.parametrize("how", ["dead-shadow", "cut-off"])
def test_a_thawed_zombie_writes_nothing_and_its_payload_dies(lab: Lab, how: str) -> None:
    """Freeze starter, wrapper and payload past the lease; the second attempt finishes elsewhere."""
    job = lab.submit(f"zombie-{how}", {"block": {"compute": [1]}}, ttl_seconds=5)
    job.wait_told("alive", "compute")
    frozen = lab.pool.freeze(job.job)
    cut = lab.pool.ep_of(frozen[0]) if how == "cut-off" else None
    try:
        if cut:
            lab.pool.cut_network(cut)
        lab.pool.kill_shadow(job.job)
        document = job.wait_status("complete")
        if any(process_is_gone(process) for process in frozen):
            pytest.fail("HTCondor killed the frozen starter before it could be thawed")
        second = job.grants()[1]
        assert second["why"] == "expired", "never early: it could still wake\n" + job.explain()
        told_before = len(job.told())
    finally:
        if cut:
            lab.pool.heal_network(cut)
        for process in frozen:
            if not process_is_gone(process):
                process.send(signal.SIGCONT)
    lab.wait_for(lambda: refused_writes(job, 1), "the zombie's write to be refused", 60)
    lab.wait_for(
        lambda: all(process_is_gone(process) for process in frozen[1:]),
        "the zombie's payload to be dead",
        60,
    )
    assert [attempt["fence"] for attempt in document["attempts"]] == [1, 2]
    after = [note for note in job.told()[told_before:] if note["attempt"] == 1]
    assert all(note["what"] == "alive" for note in after), "it finished nothing\n" + job.explain()
    assert job.subjob()["phases"] == document["phases"], "nothing changed after the thaw"
    ends = job.told("end", "stage-out")
    assert [note["attempt"] for note in ends] == [2]
    job.wait_gone()
    assert (job.directory / "result-stage-out").read_text() == "attempt 2\n"


def test_every_kind_of_write_by_a_superseded_attempt_is_refused(lab: Lab) -> None:
    """What a zombie could send, sent with its true fence: all of it is refused by its code."""
    job = lab.submit("superseded", {"block": {"compute": [1]}}, ttl_seconds=5)
    job.wait_told("alive", "compute")
    stolen = json.loads(sandbox_file(lab, job).read_text())
    lab.pool.vacate(job.job, fast=True)
    document = job.wait_status("complete")
    workflow, subjob = job.key.split("/")
    base = f"{lab.server.web_url}/v1/workflows/{workflow}/subjobs/{subjob}"
    pair = {"fence": stolen["fence"], "nonce": stolen["nonce"]}
    calls: list[tuple[str, dict[str, object]]] = [
        ("renew", {}),
        ("renew", {"details": "late"}),
        ("phases/compute/enter", {}),
        ("phases/compute/complete", {}),
        ("phases/compute/fail", {"reason": "late"}),
        ("exited", {"exit_code": 0}),
        ("abandon", {}),
        ("commit", {}),
        ("settle", {"outcome": "failed"}),
    ]
    for number, (call, more) in enumerate(calls):
        body = {**pair, **more, "request_id": f"late-{number}"}
        request = urllib.request.Request(
            f"{base}/{call}",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {lab.token(workflow)}"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        problem = json.load(refused.value)
        assert (problem["status"], problem["code"]) == (410, "superseded-attempt"), (call, problem)
    assert job.subjob()["phases"] == document["phases"]


def sandbox_file(lab: Lab, job: TestJob) -> Path:
    starter = lab.pool.starter(job.job)
    execute = lab.pool.directory / lab.pool.ep_of(starter) / "execute"
    return next(iter(execute.glob(f"dir_{starter.inner_pid}*/**/.htlease.json")))


def process_is_gone(process: Process) -> bool:
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"
