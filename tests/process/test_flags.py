"""Flags as users meet them: commands, a waiting wrapper, a payload's own call, a PRE script."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.process.command import htlease
from tests.process.dag_node import DagNode
from tests.process.execution import Sandbox, wait_for
from tests.serving import ServerProcess

from htlease_dagman.scripts.invocation import DEFER

NewSandbox = Callable[..., Sandbox]

PLAN = """
ttl_seconds = 5
[[phase]]
name = "fetch"
run = ["./fetch"]
restart = "once"
needs = ["{flag}"]
"""


def put(server: ServerProcess, flag: str, is_up: bool) -> None:
    server.ask("PUT", f"flags/{flag}", {"is_up": is_up, "reason": "tape robot"})


def lasting(server: ServerProcess, box: Sandbox) -> float:
    """Return for how long the lease lasts."""
    seconds: float = server.subjob(box.key)["expires_in_seconds"]
    return seconds


def test_a_wrapper_keeps_its_lease_while_a_flag_is_down_and_goes_on_by_itself(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    put(server, "hpss-1", False)
    box = new_sandbox(server)
    box.write("plan.toml", PLAN.format(flag="hpss-1"))
    box.script("fetch", "echo fetched > done")
    process = box.start("--plan", "plan.toml")
    wait_for(lambda: "fetch needs hpss-1, which is down: tape robot" in box.messages, "its word")
    before = server.history(box.key)
    for _ in range(4):  # renewed all the time, for longer than the lease
        low = wait_for(lambda: min(lasting(server, box), 4.4) % 4.4, "the lease to run down")
        wait_for(lambda low=low: lasting(server, box) > low + 0.3, "a renewal")  # type: ignore[misc]
    assert server.subjob(box.key)["status"] == "active"
    assert server.history(box.key) == before
    put(server, "hpss-1", True)
    assert process.wait(60) == 0
    assert (box.path / "done").exists()


def test_a_wrapper_waits_for_a_flag_no_longer_than_it_may(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    put(server, "hpss-2", False)
    box = new_sandbox(server)
    box.write("plan.toml", PLAN.format(flag="hpss-2"))
    box.script("fetch", "echo fetched > done")
    assert box.run("--plan", "plan.toml", "--wait-flag", "1") == 75
    assert "wait longer with --wait-flag" in box.messages
    [given_up] = server.events(box.key, "lease-abandoned")
    assert given_up["reason"] == "fetch needs hpss-2, which is down: tape robot"
    assert not (box.path / "done").exists()


def test_a_payload_that_enters_phases_itself_is_told_to_come_again(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    put(server, "hpss-3", False)
    box = new_sandbox(server)
    box.write("plan.toml", PLAN.format(flag="hpss-3").replace('run = ["./fetch"]\n', ""))
    box.script("work", '"$HTLEASE" phase enter fetch; echo $? > status; exit 9')
    assert box.run("--plan", "plan.toml", "--", "./work") == 9
    assert box.read("status") == "75\n"
    assert "call this again later, the lease stays" in box.messages


def test_pre_puts_its_node_off_without_a_mark_while_the_first_phase_is_held_back(
    server: ServerProcess, tmp_path: Path
) -> None:
    node = DagNode(tmp_path / "dag", server, "flagged-dag")
    plan = {"phases": [{"name": "fetch", "needs": ["hpss-4"]}, {"name": "compute"}]}
    server.ask("PUT", "workflows/flagged-dag", {"request_id": "p", "plan": plan})
    put(server, "hpss-4", False)
    for _ in range(2):
        status, said = node.run("pre")
        assert (status, "fetch needs hpss-4, which is down: tape robot" in said) == (DEFER, True)
    assert [event["event"] for event in server.history(node.key)] == ["submission-enrolled"]
    put(server, "hpss-4", True)
    assert node.run("pre") == (0, "")


def test_the_flag_commands_say_what_is_down_and_why(own_server: ServerProcess) -> None:
    assert "Every flag is up" in htlease(own_server, "flag", "list")
    assert "hpss is down" in htlease(own_server, "flag", "lower", "hpss", "--reason", "tape robot")
    listed = htlease(own_server, "flag", "list").splitlines()
    assert listed[1].split()[:2] == ["hpss", "down"] and listed[1].endswith("tape robot")
    assert "hpsss was up already" in htlease(own_server, "flag", "raise", "hpsss")
    assert "hpss is up" in htlease(own_server, "flag", "raise", "hpss")
    assert json.loads(htlease(own_server, "flag", "list", "--json"))["flags"][0]["is_up"] is True
    assert "'no good'" in htlease(own_server, "flag", "lower", "no good", "--reason", "x", status=2)
