"""Who gets the lease, who waits, who has to go."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from tests.process.execution import Sandbox, below, marked, wait_for
from tests.serving import ServerProcess

_WAITS_FOR_TERM = "trap 'echo term > heard; exit 5' TERM; echo > on; sleep 600 & wait"
NewSandbox = Callable[..., Sandbox]


def _two_starts(
    new_sandbox: NewSandbox, server: ServerProcess, slot: int = 2
) -> tuple[Sandbox, Sandbox]:
    first = new_sandbox(server)
    return first, new_sandbox(
        server, key=first.key, job_starts=1, shadow_starts=2, slot=slot, claim=2
    )


def test_the_server_that_the_access_point_put_into_the_ad_is_used(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    job = new_sandbox(server)
    del job.environ["HTLEASE_URL"]
    assert job.run("--", "true") == 78
    assert "no server is named" in job.messages
    job.job_ad["HTLeaseURL"] = server.url
    assert job.run("--", "true") == 0, job.messages
    assert server.events(job.key, "lease-acquired")


def test_not_waiting_for_the_server_is_asking_it_once(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    job = new_sandbox(server)
    assert job.run("--wait-server", "0", "--", "true") == 0, job.messages
    assert len(server.events(job.key, "phase-completed", "attempt-exited")) == 2


def test_a_newer_attempt_recalls_the_lease_and_gets_it(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    first, second = _two_starts(new_sandbox, server)
    holder = first.start("--ttl", "8", "--", first.script("p", _WAITS_FOR_TERM))
    first.wait_text("on", "\n")
    assert second.run("--ttl", "8", "--", "true") == 0
    assert holder.wait(60) == 76
    assert first.read("heard") == "term\n"
    assert "a newer attempt waits for the lease" in first.messages
    assert f"{first.key} attempt 1" in first.messages
    why = [event["why"] for event in server.events(first.key, "lease-acquired")]
    assert why == ["first", "abandoned"]


def test_a_newer_attempt_in_the_same_slot_gets_the_lease_at_once(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    first, second = _two_starts(new_sandbox, server, slot=1)
    holder = first.start("--ttl", "600", "--", first.script("p", _WAITS_FOR_TERM))
    first.wait_text("on", "\n")
    for pid in (holder.pid, *below(holder.pid)):
        os.kill(pid, signal.SIGKILL)
    assert second.run("--wait-lease", "0", "--", "true") == 0
    why = [event["why"] for event in server.events(first.key, "lease-acquired")]
    assert why == ["first", "same-slot"]


def test_takeover_immediate_fences_the_older_attempt_and_its_payload_ends(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    first, second = _two_starts(new_sandbox, server)
    options = ("--ttl", "4", "--takeover", "immediate", "--")
    holder = first.start(*options, first.script("p", _WAITS_FOR_TERM))
    first.wait_text("on", "\n")
    assert second.run(*options, "true") == 0
    assert holder.wait(60) == 76
    assert first.read("heard") == "term\n"
    assert "superseded-attempt" in first.messages


def test_a_payload_that_ignores_term_is_killed_after_the_grace(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    first, second = _two_starts(new_sandbox, server)
    first.environ["MARK"] = str(first.path)
    stubborn = first.script("p", "trap '' TERM; echo > on; while :; do sleep 1; done")
    holder = first.start("--ttl", "4", "--kill-grace", "0.5", "--", stubborn)
    first.wait_text("on", "\n")
    assert second.run("--ttl", "4", "--", "true") == 0
    assert holder.wait(60) == 76
    assert marked(f"MARK={first.path}") == []


def test_an_older_attempt_is_refused_before_any_work(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    older, newer = _two_starts(new_sandbox, server)
    assert newer.run("--", "true") == 0
    assert older.run("--", "touch", "ran") == 76
    assert not (older.path / "ran").exists()
    assert "a later attempt has started: ap1.test#42.0#1795225431@2.2" in older.messages


def test_a_complete_subjob_is_not_run_again(new_sandbox: NewSandbox, server: ServerProcess) -> None:
    first, second = _two_starts(new_sandbox, server)
    assert first.run("--restart", "once", "--", "true") == 0
    assert second.run("--restart", "once", "--", "touch", "ran") == 0
    assert not (second.path / "ran").exists()
    assert "complete already" in second.messages


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_closed_subjob_is_not_run(sandbox: Sandbox, server: ServerProcess, outcome: str) -> None:
    nonce = "n" * 32
    server.command(sandbox.key, "acquire", nonce=nonce, kind="operator", ttl_seconds=60)
    server.command(sandbox.key, "settle", fence=1, nonce=nonce, outcome=outcome)
    code = sandbox.run("--", "touch", "ran")
    if outcome == "cancelled":
        assert code == 76
        assert "the subjob is cancelled" in sandbox.messages
        assert not (sandbox.path / "ran").exists()
    else:
        assert code == 0  # a new submission re-opens what failed
        assert (sandbox.path / "ran").exists()


def test_cancelling_ends_the_payload(sandbox: Sandbox, server: ServerProcess) -> None:
    process = sandbox.start("--ttl", "4", "--", sandbox.script("p", _WAITS_FOR_TERM))
    sandbox.wait_text("on", "\n")
    server.command(sandbox.key, "cancel", reason="no longer wanted")
    assert process.wait(60) == 76
    assert sandbox.read("heard") == "term\n"
    assert "cancelled" in sandbox.messages


def test_waiting_for_a_live_lease_is_bounded_and_said_once(
    sandbox: Sandbox, server: ServerProcess
) -> None:
    server.command(sandbox.key, "acquire", nonce="n" * 32, kind="job", ttl_seconds=600)
    assert sandbox.run("--ttl", "2", "--wait-lease", "2", "--", "touch", "ran") == 75
    assert not (sandbox.path / "ran").exists()
    assert sandbox.messages.count("waiting up to 2 s") == 1
    assert "gave up after" in sandbox.messages


def test_an_attempt_that_cannot_be_ordered_waits_for_the_end_of_the_lease(
    sandbox: Sandbox, server: ServerProcess
) -> None:
    submission = sandbox.job_ad["GlobalJobId"]
    server.command(
        *(sandbox.key, "acquire"), nonce="n" * 32, ttl_seconds=3, global_job_id=submission
    )
    for name in ("NumJobStarts", "NumShadowStarts", "ShadowBday"):
        del sandbox.job_ad[name]
    assert sandbox.run("--", "true") == 0
    assert ".job.ad has no NumJobStarts: this start cannot be ordered" in sandbox.messages
    assert server.events(sandbox.key, "lease-recalled") == []


def test_the_key_can_come_from_the_submission(sandbox: Sandbox, server: ServerProcess) -> None:
    del sandbox.environ["HTLEASE_KEY"]
    sandbox.job_ad["GlobalJobId"] = f"ap/1 é#7.3#{os.getpid()}"
    assert sandbox.run("--", "sh", "-c", "echo $HTLEASE_KEY") == 0
    key = sandbox.output.decode().strip()
    assert key == f"ap-1---7-{os.getpid()}/3"
    assert server.subjob(key)["status"] == "exited"


def test_a_job_token_names_the_key(sandbox: Sandbox, server: ServerProcess) -> None:
    del sandbox.environ["HTLEASE_KEY"]
    sandbox.write("htlease.token", server.token("tokens", subjob="t1"))
    assert sandbox.run("--", "sh", "-c", "echo $HTLEASE_KEY") == 0
    assert sandbox.output == b"tokens/t1\n"
    sandbox.write("htlease.token", server.token("tokens"))
    assert sandbox.run("--", "sh", "-c", "echo $HTLEASE_KEY") == 0
    assert sandbox.output == b"tokens/42.0\n"


def test_a_wrapper_within_a_payload_leaves_the_outer_lease_alone(sandbox: Sandbox) -> None:
    inner = "$HTLEASE run --key tests/inner -- true && cat .htlease.json 2>&1"
    assert sandbox.run("--", "sh", "-c", inner) == 0
    assert sandbox.key in sandbox.output.decode()
    assert sandbox.server.subjob("tests/inner")["status"] == "exited"


def test_nothing_is_delayed_when_wait_lease_is_zero(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    first, second = _two_starts(new_sandbox, server)
    holder = first.start("--", first.script("p", _WAITS_FOR_TERM))
    first.wait_text("on", "\n")
    assert second.run("--wait-lease", "0", "--", "true") == 75
    holder.send_signal(signal.SIGTERM)
    assert holder.wait(60) == 5
    wait_for(lambda: server.subjob(first.key)["status"] == "abandoned", "the lease to be given up")


def test_of_a_parallel_universe_job_every_node_runs(
    new_sandbox: NewSandbox, sandbox: Sandbox
) -> None:
    """The first node has the job's lease; where there is a plan, each has its own."""
    plan = '[[phase]]\nname = "x"\nrun = ["./p"]\n'
    nodes = [sandbox, new_sandbox(sandbox.server, key=sandbox.key, slot=2)]
    for options in (("--", "./p"), ("--plan", "plan.toml")):
        running = []
        for number, box in enumerate(nodes):
            box.job_ad |= {"JobUniverse": 11, "Node": number}
            box.script("p", "echo > on; while [ ! -e go ]; do sleep 0.05; done; exit 4")
            box.write("plan.toml", plan)
            running.append(box.start(*options))
            box.wait_text("on", "\n")
        for box, process in zip(nodes, running, strict=True):
            box.write("go", "")
            assert process.wait(60) == 4
            (box.path / "go").unlink()
            (box.path / "on").unlink()
    assert [attempt["fence"] for attempt in sandbox.server.subjob(sandbox.key)["attempts"]] == [
        1,
        2,
    ]
    assert len(sandbox.server.subjob(f"{sandbox.key}.node1")["attempts"]) == 1
