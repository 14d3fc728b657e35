"""A stage-out that nobody waits for: its node is done, the workflow is not, until somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.process.staging import Bench
from tests.serving import ServerProcess

OUT = "stage-out"
DONE, FAILED, LATER, NOTHING_YET = 0, 1, 75, 78
LEFT_ALONE = """
[stage-out]
from = "scratch"
to = "archive"
files = ["result.dat"]
wait = false
"""


@pytest.fixture(params=["command", "globus"])
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, own_server: ServerProcess
) -> Iterator[Bench]:
    bench = Bench(tmp_path / "work", own_server, request.param)
    bench.write(more=LEFT_ALONE)
    (bench.data / "scratch").mkdir()
    (bench.data / "scratch/result.dat").write_text("result")
    bench.service.control(paused=True)
    bench.init()
    yield bench
    bench.close()


def submitted(bench: Bench) -> dict[str, Any]:
    """Let the node run, and return what is known of it then."""
    status, said = bench.end_of(bench.watch(node=OUT))
    assert status == DONE, said
    return bench.server.subjob(key_of(bench))


def key_of(bench: Bench) -> str:
    return bench.key.replace("stage-in", OUT)


def check(bench: Bench) -> tuple[int, str]:
    done = bench.htlease("stage", "check", "staging.toml")
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_its_node_is_done_when_the_service_has_it_and_the_subjob_is_not(bench: Bench) -> None:
    document = submitted(bench)
    assert (document["status"], document["outcome"]) == ("abandoned", None)
    (phase,) = document["phases"]
    assert phase["entered_fence"] == 1 and phase["completed_fence"] is None
    assert '"state":"submitted"' in document["details"]
    workflow = key_of(bench).partition("/")[0]
    assert bench.server.ask("GET", f"workflows/{workflow}")["state"] != "complete"


def test_a_look_submits_nothing(bench: Bench) -> None:
    status, said = check(bench)
    assert status == NOTHING_YET and "has not been given to the transfer service" in said
    assert bench.counts()["submit"] == 0


def test_a_look_completes_it_once_the_transfer_is_over(bench: Bench) -> None:
    submitted(bench)
    status, said = check(bench)
    assert (status, "goes on" in said) == (LATER, True), said
    bench.service.control(paused=False)
    bench.until(lambda: (bench.data / "archive/result.dat").exists(), "the transfer")
    bench.until(lambda: check(bench)[0] == DONE, "the look that sees the end")
    assert bench.server.subjob(key_of(bench))["outcome"] == "complete"
    assert (bench.counts()["submit"], bench.counts()["accepted"]) == (1, 1)


def test_a_look_at_a_failed_one_closes_it_with_the_reason(bench: Bench) -> None:
    submitted(bench)
    bench.service.control(fail="fatal")
    bench.until(lambda: "FAILED" in bench.service.control()["tasks"].values(), "the failure")
    status, said = check(bench)
    assert status == FAILED and "PERMISSION_DENIED" in said
    closed = bench.server.events(key_of(bench), "subjob-closed")
    assert closed[-1]["outcome"] == "failed" and "PERMISSION_DENIED" in closed[-1]["reason"]


def test_a_person_may_waive_it(bench: Bench) -> None:
    submitted(bench)
    done = bench.htlease("stage", "waive", "staging.toml", "--reason", "the archive mails us")
    assert done.returncode == DONE, done.stderr
    closed = bench.server.events(key_of(bench), "subjob-closed")
    assert (closed[-1]["outcome"], closed[-1]["reason"]) == (
        "complete",
        "waived: the archive mails us",
    )


def test_submitted_again_the_node_is_done_and_no_second_task_is_made(bench: Bench) -> None:
    submitted(bench)
    status, said = bench.end_of(bench.watch(node=OUT, starts=1))
    assert status == DONE, said
    assert bench.counts()["submit"] == 1
    bench.service.control(paused=False)
    bench.until(lambda: (bench.data / "archive/result.dat").exists(), "the transfer")

    def is_complete() -> bool:
        assert bench.end_of(bench.watch(node=OUT, starts=2))[0] == DONE
        return bool(bench.server.subjob(key_of(bench))["outcome"] == "complete")

    bench.until(is_complete, "a watcher that sees the end")
    assert bench.counts()["submit"] == 1


def test_an_expired_credential_is_waited_for_before_it_is_left_alone(bench: Bench) -> None:
    bench.service.control(credential="token")
    watcher = bench.watch(node=OUT)
    bench.until(lambda: (bench.folder / "notices.txt").exists(), "the notice")
    assert watcher.poll() is None
    bench.service.control(credential="ok")
    assert bench.end_of(watcher)[0] == DONE
    assert bench.counts()["accepted"] == 1
