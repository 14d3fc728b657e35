"""Plans are walked, restarts carry on, details are handed over."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from tests.process.execution import Sandbox, below, wait_for
from tests.serving import ServerProcess

NewSandbox = Callable[..., Sandbox]

_THREE = """
[[phase]]
name = "fetch"
run = ["./fetch"]
[[phase]]
name = "compute"
run = ["./compute"]
restart = "resume"
[[phase]]
name = "push"
run = ["./push"]
restart = "once"
exclusive = true
"""


def _next_start(new_sandbox: NewSandbox, box: Sandbox, number: int) -> Sandbox:
    return new_sandbox(
        box.server, key=box.key, job_starts=number - 1, shadow_starts=number, claim=number
    )


def _kill(box: Sandbox) -> None:
    """End a start as a starter's death does: everything at once, unheard."""
    for process in box.running:
        for pid in (process.pid, *below(process.pid)):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def test_a_restart_redoes_resumes_and_skips(
    new_sandbox: NewSandbox, server: ServerProcess, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    first = new_sandbox(server)
    boxes = [first, _next_start(new_sandbox, first, 2), _next_start(new_sandbox, first, 3)]
    for number, box in enumerate(boxes, 1):
        box.write("plan.toml", _THREE)
        box.script("fetch", f"echo fetch{number} >> {log}")
        box.script(
            "compute",
            f'echo "compute{number} from $(cat $HTLEASE_DETAILS 2>/dev/null)" >> {log}\n'
            f'echo "step {number}" > $HTLEASE_DETAILS.new; mv $HTLEASE_DETAILS.new $HTLEASE_DETAILS\n'
            + ("echo > on; sleep 600" if number == 1 else "true"),
        )
        box.script("push", f"echo push{number} >> {log}" + ("; exit 5" if number == 2 else ""))
    first.start("--plan", "plan.toml")
    first.wait_text("on", "\n")
    wait_for(lambda: server.events(first.key, "details-saved"), "the details to be saved")
    _kill(first)
    assert boxes[1].run("--plan", "plan.toml") == 5
    assert boxes[2].run("--plan", "plan.toml") == 0
    assert log.read_text().splitlines() == [
        *("fetch1", "compute1 from "),
        *("fetch2", "compute2 from step 1", "push2"),
        *("fetch3", "compute3 from step 2", "push3"),
    ]
    subjob = server.subjob(first.key)
    assert subjob["outcome"] == "complete"
    assert [attempt["end"] for attempt in subjob["attempts"]] == ["superseded", "exited", "exited"]
    fourth = _next_start(new_sandbox, first, 4)
    fourth.write("plan.toml", _THREE)
    assert fourth.run("--plan", "plan.toml") == 0
    assert len(log.read_text().splitlines()) == 8


def test_a_once_phase_that_was_completed_is_skipped(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    plan = (
        '[[phase]]\nname = "order"\nrun = ["touch", "ordered"]\nrestart = "once"\n'
        '[[phase]]\nname = "wait"\nrun = ["sh", "-c", "test -e fine"]\n'
    )
    first = new_sandbox(server)
    second = _next_start(new_sandbox, first, 2)
    for box in (first, second):
        box.write("plan.toml", plan)
    (second.path / "fine").touch()
    assert first.run("--plan", "plan.toml") == 1
    assert second.run("--plan", "plan.toml") == 0
    assert (first.path / "ordered").exists()
    assert not (second.path / "ordered").exists()
    assert "to run: wait" in second.messages


def test_a_plan_in_json_works_the_same(sandbox: Sandbox) -> None:
    sandbox.write("plan.json", '{"phase": [{"name": "a", "run": ["sh", "-c", "exit 9"]}]}')
    assert sandbox.run("--plan", "plan.json") == 9
    assert sandbox.server.subjob(sandbox.key)["phases"][0]["exit_code"] == 9


def test_a_checkpoint_restart_keeps_the_lease_and_goes_on_in_its_phase(
    sandbox: Sandbox, server: ServerProcess
) -> None:
    sandbox.job_ad["SuccessCheckpointExitCode"] = 85
    sandbox.write("plan.toml", _THREE)
    sandbox.script("fetch", "echo fetch >> log")
    sandbox.script(
        "compute",
        'echo "compute from $(cat $HTLEASE_DETAILS 2>/dev/null)" >> log\n'
        "n=$(grep -c compute log)\n"
        'echo "step $n" > $HTLEASE_DETAILS.new; mv $HTLEASE_DETAILS.new $HTLEASE_DETAILS\n'
        "test $n -lt 3 && exit 85; exit 0",
    )
    sandbox.script("push", "echo push >> log")
    assert [sandbox.run("--plan", "plan.toml") for _ in range(3)] == [85, 85, 0]
    assert sandbox.read("log").splitlines() == [
        *("fetch", "compute from ", "compute from step 1", "compute from step 2", "push"),
    ]
    subjob = server.subjob(sandbox.key)
    assert (subjob["outcome"], subjob["fence"]) == ("complete", 1)
    assert server.events(sandbox.key, "phase-failed", "lease-abandoned", "attempt-refused") == []
    assert not (sandbox.path / ".htlease.json").exists()


def test_the_state_of_another_start_is_not_believed(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    """HTCondor may carry files of one sandbox into the next (ON_EXIT_OR_EVICT)."""
    first = new_sandbox(server)
    first.job_ad["SuccessCheckpointExitCode"] = 85
    assert first.run("--", "sh", "-c", "exit 85") == 85
    second = _next_start(new_sandbox, first, 2)
    second.write(".htlease.json", first.read(".htlease.json"), 0o600)
    assert second.run("--", "true") == 0
    assert server.subjob(first.key)["fence"] == 2


def test_two_wrappers_in_one_sandbox_do_not_share_a_lease(
    sandbox: Sandbox, server: ServerProcess
) -> None:
    process = sandbox.start("--", "sh", "-c", "echo > on; read x < go")
    os.mkfifo(sandbox.path / "go")
    sandbox.wait_text("on", "\n")
    assert sandbox.run("--wait-lease", "0", "--", "touch", "ran") == 75
    assert not (sandbox.path / "ran").exists()
    assert sandbox.read(".htlease.json")
    (sandbox.path / "go").write_text("x\n")
    assert process.wait(60) == 0


def test_details_that_cannot_be_saved_are_said_once_and_hurt_nothing(
    sandbox: Sandbox, server: ServerProcess
) -> None:
    save = "mv $HTLEASE_DETAILS.new $HTLEASE_DETAILS"
    big = f"head -c 70000 /dev/zero | tr '\\0' x > $HTLEASE_DETAILS.new; {save}; sleep 2.5"
    odd = f"printf '\\377' > $HTLEASE_DETAILS.new; {save}"
    assert sandbox.run("--", "sh", "-c", f"{big}; {odd}") == 0
    assert sandbox.messages.count("has 70000 bytes and 65536 is the limit") == 1
    assert sandbox.messages.count("is not UTF-8 text") == 1
    assert server.subjob(sandbox.key)["details"] is None


def test_details_saved_just_before_an_eviction_are_kept(
    sandbox: Sandbox, server: ServerProcess
) -> None:
    save = "echo last > $HTLEASE_DETAILS.new; mv $HTLEASE_DETAILS.new $HTLEASE_DETAILS; exit 9"
    process = sandbox.start(
        "--", sandbox.script("p", f"trap '{save}' TERM; echo > on; sleep 600 & wait")
    )
    sandbox.wait_text("on", "\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 9
    assert server.subjob(sandbox.key)["details"] == "last\n"


_MANAGED = """
[[phase]]
name = "order"
restart = "once"
[[phase]]
name = "work"
restart = "resume"
"""


def test_a_payload_can_manage_its_phases_itself(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    first = new_sandbox(server)
    second = _next_start(new_sandbox, first, 2)
    payload = (
        'cd / && [ "$("$HTLEASE" phase enter order)" = run ] && '
        '{ echo ordered; "$HTLEASE" phase complete order --artifact id=77; }\n'
        '"$HTLEASE" phase enter work || exit\n'
        'cat "$HTLEASE_DETAILS" 2>/dev/null\n'
    )
    failing = (
        'echo half | "$HTLEASE" details - && "$HTLEASE" phase fail work --reason tired; exit 7'
    )
    for box in (first, second):
        box.write("plan.toml", _MANAGED)
    assert first.run("--plan", "plan.toml", "--", "sh", "-c", payload + failing) == 7
    assert first.output == b"ordered\nrun\n"
    rest = '"$HTLEASE" phase complete work'
    assert second.run("--plan", "plan.toml", "--", "sh", "-c", payload + rest) == 0
    assert second.output == b"run\nhalf\n"
    names = [event["event"] for event in server.history(first.key) if "phase" in event["event"]]
    assert names == [
        *("phase-entered", "phase-completed", "phase-entered", "phase-failed"),
        *("phase-entered", "phase-completed"),
    ]
    assert server.subjob(first.key)["phases"][0]["artifacts"] == {"id": "77"}


def test_phase_enter_says_skip_for_what_was_done_once(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    first = new_sandbox(server)
    second = _next_start(new_sandbox, first, 2)
    for box in (first, second):
        box.write("plan.toml", _MANAGED)
    both = '"$HTLEASE" phase enter order && "$HTLEASE" phase complete order; exit 3'
    assert first.run("--plan", "plan.toml", "--", "sh", "-c", both) == 3
    assert second.run("--plan", "plan.toml", "--", "sh", "-c", '"$HTLEASE" phase enter order') == 0
    assert second.output == b"skip\n"


def test_a_superseded_payload_learns_it_from_its_own_calls(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    first = new_sandbox(server)
    second = _next_start(new_sandbox, first, 2)
    for box in (first, second):
        box.write("plan.toml", _MANAGED)
    calls = (
        "trap '' TERM; echo > on; read x < go; \"$HTLEASE\" phase enter order; echo $? > code1\n"
        'echo x | "$HTLEASE" details -; echo $? > code2'
    )
    os.mkfifo(first.path / "go")
    process = first.start("--plan", "plan.toml", "--", first.script("p", calls))
    first.wait_text("on", "\n")
    # The wrapper is frozen, its payload is not: only the payload's own calls can tell.
    os.kill(process.pid, signal.SIGSTOP)
    assert second.run("--plan", "plan.toml", "--", "true") == 0
    (first.path / "go").write_text("x\n")
    assert first.wait_text("code2", "\n") == "76\n"
    assert first.read("code1") == "76\n"
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(60) == 76


def test_a_profile_is_a_payload_managed_state_machine(
    sandbox: Sandbox, server: ServerProcess
) -> None:
    walk = 'for state in waiting running complete; do "$HTLEASE" phase enter $state || exit; done'
    assert sandbox.run("--profile", "simple", "--", "sh", "-c", walk) == 0
    assert sandbox.output == b"run\nrun\nrun\n"
    assert server.subjob(sandbox.key)["outcome"] == "complete"


def test_a_step_that_the_state_machine_forbids_is_bad_use(sandbox: Sandbox) -> None:
    assert (
        sandbox.run("--profile", "simple", "--", "sh", "-c", '"$HTLEASE" phase enter complete')
        == 78
    )
    assert "complete does not follow waiting in simple" in sandbox.messages


def test_a_payload_that_closes_its_subjob_may_still_finish(
    sandbox: Sandbox, server: ServerProcess
) -> None:
    sandbox.write("plan.toml", '[[phase]]\nname = "one"\nrestart = "once"\n')
    payload = (
        '"$HTLEASE" phase enter one; "$HTLEASE" phase complete one; echo > on; read x < go; exit 4'
    )
    os.mkfifo(sandbox.path / "go")
    process = sandbox.start("--ttl", "2", "--plan", "plan.toml", "--", sandbox.script("p", payload))
    sandbox.wait_text("on", "\n")
    # Long enough for several renewals, each of which hears that the subjob is closed.
    seen = len(server.history(sandbox.key))
    wait_for(lambda: server.subjob(sandbox.key)["outcome"] == "complete", "the end of the subjob")
    threading.Event().wait(2.5)
    assert process.poll() is None
    (sandbox.path / "go").write_text("x\n")
    assert process.wait(60) == 4
    assert len(server.history(sandbox.key)) >= seen


class _Starter:
    """The starter's side of chirp: takes a cookie and attributes."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def config(self) -> str:
        return f"127.0.0.1 {self._listener.getsockname()[1]} co\\okie"

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rwb") as stream:
                for line in stream:
                    self.lines.append(line.decode().rstrip("\n"))
                    stream.write(b"0\n")
                    stream.flush()


def test_phase_and_attempt_are_put_into_the_job_by_chirp(sandbox: Sandbox) -> None:
    starter = _Starter()
    sandbox.write(".chirp.config", starter.config)
    assert sandbox.run("--phase-name", "my phase".replace(" ", "-"), "--", "sleep", "0.2") == 0
    wait_for(lambda: len(starter.lines) >= 4, f"four lines of chirp in {starter.lines}")
    assert starter.lines == [
        r"cookie co\\okie",
        'set_job_attr_delayed ChirpHTLeasePhase "my-phase"',
        "set_job_attr_delayed ChirpHTLeaseAttempt 1",
        'set_job_attr_delayed ChirpHTLeaseState "live"',
    ]


def test_a_starter_that_does_not_answer_chirp_costs_nothing(sandbox: Sandbox) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    sandbox.environ["_CONDOR_CHIRP_CONFIG"] = str(
        sandbox.write("chirp", f"127.0.0.1 {listener.getsockname()[1]} cookie")
    )
    assert sandbox.run("--", "sh", "-c", "exit 3") == 3
    assert sandbox.messages == ""
    listener.close()


def test_a_job_without_a_plan_gets_back_what_it_saved(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    saving = (
        '[ -e "$HTLEASE_DETAILS" ] && exec cat "$HTLEASE_DETAILS"\n'
        "trap 'echo step 7 > $HTLEASE_DETAILS.new; mv $HTLEASE_DETAILS.new $HTLEASE_DETAILS; exit 9' TERM\n"
        "echo > on; while :; do sleep 0.05; done"
    )
    box = new_sandbox(server)
    process = box.start("--", box.script("p", saving))
    box.wait_text("on", "\n")
    process.terminate()
    assert process.wait(60) == 9
    for options, expected in ((("--restart", "redo"), b""), ((), b"step 7\n")):
        number = 1 + bool(not options)
        again = new_sandbox(server, key=box.key, job_starts=number, shadow_starts=number + 1)
        script = again.script("p", '[ -e "$HTLEASE_DETAILS" ] && cat "$HTLEASE_DETAILS"; exit 0')
        assert again.run(*options, "--", script) == 0
        assert again.output == expected
