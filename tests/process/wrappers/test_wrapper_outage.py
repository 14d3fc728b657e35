"""When the server is away, or the wrapper itself stood still."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.process.execution import Sandbox, below, process_state, wait_for
from tests.process.line import CuttableLine
from tests.serving import ServerProcess

NewSandbox = Callable[..., Sandbox]

_UNTIL_GO = "echo > on; while [ ! -e go ]; do sleep 0.05; done; exit 4"
#: Ticks every 20 ms and ends with 4 when told so.
_TICKER = """
import os, time
while not os.path.exists("end"):
    with open("ticks", "a") as file:
        file.write("%f\\n" % time.monotonic())
    time.sleep(0.02)
os._exit(4)
"""


def _last_tick(box: Sandbox) -> float:
    lines = box.read("ticks").split("\n")
    return float(lines[-2]) if len(lines) > 1 else 0.0


def _exclusive_plan(box: Sandbox, run: str) -> str:
    box.write(
        "plan.toml", f'ttl_seconds = 3\n[[phase]]\nname = "x"\nrun = ["{run}"]\nexclusive = true\n'
    )
    return "plan.toml"


@pytest.mark.parametrize("harm", ['restart = "once"', "exclusive = true"])
def test_no_server_at_the_start_means_try_again_later_for_what_must_not_run_twice(
    new_sandbox: NewSandbox, own_server: ServerProcess, harm: str
) -> None:
    box = new_sandbox(own_server)
    own_server.stop()
    box.write("plan.toml", f'[[phase]]\nname = "x"\nrun = ["touch", "ran"]\n{harm}\n')
    assert box.run("--wait-server", "1", "--plan", "plan.toml") == 75
    assert not (box.path / "ran").exists()
    assert "the payload was not started: the server does not answer" in box.messages


def test_no_server_from_the_start_to_the_end_costs_nothing_but_the_record(
    new_sandbox: NewSandbox, own_server: ServerProcess
) -> None:
    box = new_sandbox(own_server)
    own_server.stop()
    payload = box.script("p", 'echo "$HTLEASE_OUTPUT_PREFIX" > prefix; exit 3')
    assert box.run("--wait-server", "0", "--", payload) == 3
    assert "the payload runs untracked until it does" in box.messages
    assert "updates did not reach the server" in box.messages
    first = box.read("prefix")
    assert box.run("--wait-server", "0", "--", payload) == 3
    assert box.read("prefix") != first  # no two attempts write to one name


def test_an_untracked_payload_gets_its_lease_when_the_server_is_back(
    new_sandbox: NewSandbox, own_server: ServerProcess
) -> None:
    box = new_sandbox(own_server)
    own_server.stop()
    first = box.script(
        "first",
        'echo "half way" > $HTLEASE_DETAILS.new; mv $HTLEASE_DETAILS.new $HTLEASE_DETAILS\n'
        "echo > on1",
    )
    second = box.script(
        "second",
        "echo > on2; echo more | $HTLEASE details - || exit 9\n"
        "while [ ! -e go ]; do sleep 0.05; done; exit 4",
    )
    box.write(
        "plan.toml",
        f'ttl_seconds = 3\n[[phase]]\nname = "one"\nrun = ["{first}"]\n'
        f'[[phase]]\nname = "two"\nrun = ["{second}"]\n',
    )
    process = box.start("--wait-server", "0", "--plan", "plan.toml")
    box.wait_text("on2", "\n")
    own_server.start()
    box.wait_text("stderr", "the server answers again")
    wait_for(lambda: own_server.subjob(box.key)["details"] == "more\n", "the payload's own call")
    (box.path / "go").touch()
    assert process.wait(60) == 4
    (attempt,) = own_server.subjob(box.key)["attempts"]
    assert (attempt["exit_code"], [phase["name"] for phase in attempt["phases"]]) == (
        4,
        ["one", "two"],
    )
    (granted,) = own_server.events(box.key, "lease-acquired")
    for entered in own_server.events(box.key, "phase-entered"):
        assert entered["is_underway"]
        assert entered["client_at"] < granted["at"]
    assert "the server answers again" in box.messages


def test_an_untracked_payload_is_not_ended_for_the_sake_of_one_that_has_the_lease(
    new_sandbox: NewSandbox, own_server: ServerProcess
) -> None:
    box = new_sandbox(own_server)
    own_server.command(box.key, "acquire", nonce="n" * 32, kind="job", ttl_seconds=600)
    own_server.stop()
    process = box.start("--wait-server", "0", "--", box.script("p", _UNTIL_GO))
    box.wait_text("on", "\n")
    own_server.start()
    box.wait_text("stderr", "the payload runs beside it")
    (box.path / "go").touch()
    assert process.wait(60) == 4
    assert len(own_server.subjob(box.key)["attempts"]) == 1


def test_an_untracked_payload_of_a_superseded_start_is_ended(
    new_sandbox: NewSandbox, own_server: ServerProcess
) -> None:
    box = new_sandbox(own_server)
    newer = new_sandbox(own_server, key=box.key, job_starts=1, shadow_starts=2)
    assert newer.run("--", "true") == 0
    own_server.stop()
    process = box.start("--wait-server", "0", "--", box.script("p", _UNTIL_GO))
    box.wait_text("on", "\n")
    own_server.start()
    assert process.wait(60) == 76


def test_a_server_that_comes_in_time_is_waited_for(
    new_sandbox: NewSandbox, own_server: ServerProcess
) -> None:
    box = new_sandbox(own_server)
    own_server.stop()
    process = box.start("--wait-server", "60", "--", "sh", "-c", "exit 3")
    box.wait_text("stderr", "waiting up to 60 s")
    own_server.start()
    assert process.wait(60) == 3


def test_the_payload_goes_on_without_the_server_and_updates_catch_up_in_order(
    new_sandbox: NewSandbox, own_server: ServerProcess
) -> None:
    box = new_sandbox(own_server)
    first = box.script(
        "first",
        "echo > on1; while [ ! -e go ]; do sleep 0.05; done\n"
        'echo "half way" > $HTLEASE_DETAILS.new; mv $HTLEASE_DETAILS.new $HTLEASE_DETAILS',
    )
    second = box.script("second", "echo > on2; exit 0")
    box.write(
        "plan.toml",
        f'[[phase]]\nname = "one"\nrun = ["{first}"]\n[[phase]]\nname = "two"\nrun = ["{second}"]\n',
    )
    process = box.start("--plan", "plan.toml")
    box.wait_text("on1", "\n")
    own_server.stop(signal.SIGKILL)
    (box.path / "go").touch()
    box.wait_text("on2", "\n")
    box.wait_text("stderr", "updates are kept and sent later")
    assert process.poll() is None
    own_server.start()
    assert process.wait(60) == 0
    names = [
        event["event"]
        for event in own_server.history(box.key)
        if event["event"].startswith(("phase", "details", "attempt"))
    ]
    assert names == [
        *("phase-entered", "details-saved", "phase-completed"),
        *("phase-entered", "phase-completed", "attempt-exited"),
    ]
    assert own_server.subjob(box.key)["details"] == "half way\n"
    assert len(own_server.subjob(box.key)["attempts"]) == 1
    assert "the server answers again" in box.messages


def test_a_server_that_stays_away_does_not_change_the_payloads_status(
    new_sandbox: NewSandbox, own_server: ServerProcess
) -> None:
    box = new_sandbox(own_server)
    process = box.start(
        "--wait-server", "1", "--", box.script("p", "echo > on; read x < go; exit 6")
    )
    os.mkfifo(box.path / "go")
    box.wait_text("on", "\n")
    own_server.stop()
    (box.path / "go").write_text("x\n")
    assert process.wait(60) == 6
    assert "updates did not reach the server" in box.messages


def test_an_evicted_job_does_not_wait_for_a_server_that_is_away(
    new_sandbox: NewSandbox, own_server: ServerProcess
) -> None:
    box = new_sandbox(own_server)
    process = box.start("--", box.script("p", "trap 'exit 9' TERM; echo > on; sleep 600 & wait"))
    box.wait_text("on", "\n")
    own_server.stop()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 9  # far below --wait-server


@pytest.mark.parametrize("plan", ["one phase", "a last phase that is once"])
def test_a_payload_that_has_ended_does_not_keep_its_slot_for_a_token_that_is_refused(
    new_sandbox: NewSandbox, server: ServerProcess, plan: str
) -> None:
    box = new_sandbox(server)
    workflow, _, subjob = box.key.partition("/")
    box.write("htlease.token", server.token(workflow, subjob=subjob))
    payload = box.script("p", "echo > on; read x < go; exit 0")
    text = f'[[phase]]\nname = "p"\nrun = ["{payload}"]\n'
    box.write("plan.toml", text + ('restart = "once"\n' if "once" in plan else ""))
    os.mkfifo(box.path / "go")
    # Far longer than the test may take.
    process = box.start("--wait-server", "3600", "--plan", "plan.toml")
    box.wait_text("on", "\n")
    server.ask("POST", "tokens/revoke", {"workflow": workflow, "subjob": subjob})
    (box.path / "go").write_text("x\n")
    assert process.wait(60) == 0
    assert "the server refuses the token, so that it is not waited for" in box.messages


def test_a_token_that_came_just_before_the_end_is_used_for_it(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    box = new_sandbox(server)
    workflow, _, subjob = box.key.partition("/")
    box.write("htlease.token", server.token(workflow, subjob=subjob))
    payload = box.script("p", "echo > on; read x < go; exit 0")
    os.mkfifo(box.path / "go")
    process = box.start("--wait-server", "3600", "--", payload)
    box.wait_text("on", "\n")
    server.ask("POST", "tokens/revoke", {"workflow": workflow, "subjob": subjob})
    box.write("htlease.token", server.token(workflow, subjob=subjob))
    (box.path / "go").write_text("x\n")
    assert process.wait(60) == 0
    assert "did not reach" not in box.messages
    assert server.subjob(box.key)["exit_code"] == 0


def test_a_once_phase_waits_for_the_server_before_it_starts(
    new_sandbox: NewSandbox, own_server: ServerProcess
) -> None:
    box = new_sandbox(own_server)
    box.write(
        "plan.toml",
        '[[phase]]\nname = "one"\nrun = ["sh", "-c", "echo > on; read x < go"]\n'
        '[[phase]]\nname = "two"\nrun = ["touch", "second"]\nrestart = "once"\n',
    )
    os.mkfifo(box.path / "go")
    process = box.start("--plan", "plan.toml")
    box.wait_text("on", "\n")
    own_server.stop()
    (box.path / "go").write_text("x\n")
    box.wait_text("stderr", "two must not run twice, so it waits for the server")
    assert not (box.path / "second").exists()
    own_server.start()
    assert process.wait(60) == 0
    assert (box.path / "second").exists()


def test_an_exclusive_payload_stands_still_before_its_lease_can_have_ended(
    new_sandbox: NewSandbox, own_server: ServerProcess
) -> None:
    box = new_sandbox(own_server)
    process = box.start("--plan", _exclusive_plan(box, box.python_script("p", _TICKER)))
    box.wait_text("ticks")
    own_server.signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    (payload,) = below(process.pid)
    wait_for(lambda: process_state(payload) == "T", "the payload to stand still")
    last_tick = _last_tick(box)
    # No renewal can have succeeded after the server stopped.
    assert last_tick < stopped_at + 3.0
    wait_for(lambda: time.monotonic() > stopped_at + 5.0, "the lease to be over")
    assert _last_tick(box) == last_tick
    own_server.signal(signal.SIGCONT)
    wait_for(lambda: _last_tick(box) > last_tick, "the payload to go on")
    (box.path / "end").touch()
    assert process.wait(60) == 4
    assert len(own_server.subjob(box.key)["attempts"]) == 1


def test_an_exclusive_payload_that_was_superseded_never_runs_again(
    new_sandbox: NewSandbox, own_server: ServerProcess
) -> None:
    line = CuttableLine(own_server.url)
    first = new_sandbox(own_server)
    first.environ["HTLEASE_URL"] = line.url
    second = new_sandbox(own_server, key=first.key, job_starts=1, shadow_starts=2, slot=2)
    plan = _exclusive_plan(first, first.python_script("p", _TICKER))
    process = first.start("--plan", plan)
    first.wait_text("ticks")
    line.cut()
    _exclusive_plan(second, second.script("p", "exit 0"))
    assert second.run("--plan", "plan.toml") == 0
    granted_at = own_server.events(first.key, "lease-acquired")[-1]["at"]
    last_tick = _last_tick(first)
    assert granted_at
    line.heal()
    assert process.wait(60) == 76
    assert _last_tick(first) == last_tick
    line.close()


def test_suspended_past_its_lease_a_job_goes_on_when_nobody_took_it(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    box = new_sandbox(server)
    process = box.start("--ttl", "2", "--", box.python_script("p", _TICKER))
    box.wait_text("ticks")
    family = [process.pid, *below(process.pid)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: server.subjob(box.key)["status"] == "lapsed", "the lease to lapse")
    for pid in family:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: server.subjob(box.key)["status"] == "active", "the lease to be revived")
    (box.path / "end").touch()
    assert process.wait(60) == 4
    assert len(server.subjob(box.key)["attempts"]) == 1


def test_suspended_past_its_lease_a_superseded_job_ends_its_payload(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    first = new_sandbox(server)
    second = new_sandbox(server, key=first.key, job_starts=1, shadow_starts=2, slot=2)
    process = first.start("--ttl", "2", "--", first.python_script("p", _TICKER))
    first.wait_text("ticks")
    family = [process.pid, *below(process.pid)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    assert second.run("--ttl", "2", "--", "true") == 0
    for pid in family:
        os.kill(pid, signal.SIGCONT)
    assert process.wait(60) == 76
    assert not any(Path(f"/proc/{pid}").exists() for pid in family[1:])
    assert server.subjob(first.key)["fence"] == 2


def test_a_refreshed_token_is_picked_up(new_sandbox: NewSandbox, server: ServerProcess) -> None:
    box = new_sandbox(server)
    workflow, _, subjob = box.key.partition("/")
    box.write("htlease.token", server.token(workflow, subjob=subjob, ttl_seconds=6))
    process = box.start("--ttl", "2", "--", box.python_script("p", _TICKER))
    box.wait_text("ticks")
    box.wait_text("stderr", "the server refuses the token")
    assert process.poll() is None
    box.write("htlease.token", server.token(workflow, subjob=subjob, ttl_seconds=600))
    box.wait_text("stderr", "the server answers again")
    (box.path / "end").touch()
    assert process.wait(60) == 4
    assert server.subjob(box.key)["exit_code"] == 4
