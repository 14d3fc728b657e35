"""A payload that has had its wall time is asked to end, and the plan says what that comes to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.process.execution import Sandbox
from tests.serving import ServerProcess

NewSandbox = Callable[..., Sandbox]
OUT_OF_TIME, SUPERSEDED, BAD_CONFIG = 79, 76, 78

#: Three seconds for the job, the last of them to say goodbye.
_PLAN = """
wall_time_seconds = 3
on_wall_time = "{policy}"
[[phase]]
name = "compute"
run = ["./compute"]
restart = "resume"
[[phase]]
name = "push"
run = ["./push"]
restart = "once"
"""
_GRACE = ("--kill-grace", "1")
#: Saves when it is asked to end; done when it finds that something was saved.
_COMPUTE = """
if [ -s "$HTLEASE_DETAILS" ]; then cat "$HTLEASE_DETAILS" > from; exit 0; fi
trap 'echo half > $HTLEASE_DETAILS.new; mv $HTLEASE_DETAILS.new $HTLEASE_DETAILS; exit 0' TERM
echo > on
while :; do sleep 0.1; done
"""


def _out_of_time(box: Sandbox, policy: str) -> None:
    box.write("plan.toml", _PLAN.format(policy=policy))
    box.script("compute", _COMPUTE)
    box.script("push", "echo pushed > pushed")
    assert box.run("--plan", "plan.toml", *_GRACE) == OUT_OF_TIME
    assert not (box.path / "pushed").exists()
    (attempt,) = box.server.subjob(box.key)["attempts"]
    assert (
        attempt["reason"] == "walltime: the job has had its 3 s; its payload ended with exit code 0"
    )
    assert attempt["reason"] in box.messages


def _next(new_sandbox: NewSandbox, box: Sandbox, **start: object) -> Sandbox:
    box = new_sandbox(box.server, key=box.key, **{"job_starts": 1, "shadow_starts": 2, **start})
    box.write("plan.toml", _PLAN.format(policy="next-attempt"))
    box.script("compute", _COMPUTE)
    box.script("push", "echo pushed > pushed")
    return box


@pytest.mark.parametrize("policy", ["next-attempt", "hold"])
def test_the_next_attempt_goes_on_from_what_was_saved_in_time(
    new_sandbox: NewSandbox, server: ServerProcess, policy: str
) -> None:
    box = new_sandbox(server)
    _out_of_time(box, policy)
    assert box.server.subjob(box.key)["outcome"] is None
    then = _next(new_sandbox, box)
    assert then.run("--plan", "plan.toml", *_GRACE) == 0
    assert then.read("from") == "half\n"
    assert then.server.subjob(box.key)["outcome"] == "complete"


def test_a_plan_may_call_it_a_failure_for_good(
    new_sandbox: NewSandbox, server: ServerProcess
) -> None:
    box = new_sandbox(server)
    _out_of_time(box, "fail")
    (closed,) = server.events(box.key, "subjob-closed")
    assert (closed["outcome"], closed["by"]) == ("failed", "walltime")
    (failed,) = server.events(box.key, "phase-failed")
    assert failed["phase"] == "compute"
    assert closed["reason"] == failed["reason"]
    again = _next(new_sandbox, box)
    assert again.run("--plan", "plan.toml", *_GRACE) == SUPERSEDED
    assert not (again.path / "from").exists()


def test_a_phase_has_a_wall_time_of_its_own(sandbox: Sandbox, server: ServerProcess) -> None:
    sandbox.write(
        "plan.toml",
        '[[phase]]\nname = "fetch"\nrun = ["./fetch"]\nwall_time_seconds = 2\n'
        '[[phase]]\nname = "compute"\nrun = ["true"]\n',
    )
    sandbox.script("fetch", "trap '' TERM; echo > on; sleep 600 & wait; wait")
    assert sandbox.run("--plan", "plan.toml", *_GRACE) == OUT_OF_TIME
    (attempt,) = server.subjob(sandbox.key)["attempts"]
    assert attempt["reason"].startswith("walltime: phase fetch has had its 2 s; ")
    assert attempt["exit_signal"] == 9


def test_a_once_phase_that_ends_well_when_asked_is_done(
    sandbox: Sandbox, server: ServerProcess
) -> None:
    sandbox.script("push", "trap 'exit 0' TERM; echo > on; while :; do sleep 0.1; done")
    options = ("--restart", "once", "--wall-time", "2", *_GRACE)
    assert sandbox.run(*options, "--", "./push") == 0
    assert server.subjob(sandbox.key)["outcome"] == "complete"


def test_no_phase_is_begun_when_the_time_is_over(sandbox: Sandbox, server: ServerProcess) -> None:
    sandbox.write("plan.toml", _PLAN.format(policy="next-attempt").replace('"resume"', '"once"'))
    sandbox.script("compute", "trap '' TERM; sleep 2.5 & wait; wait")
    sandbox.script("push", "echo pushed > pushed")
    assert sandbox.run("--plan", "plan.toml", *_GRACE) == OUT_OF_TIME
    assert not (sandbox.path / "pushed").exists()
    (attempt,) = server.subjob(sandbox.key)["attempts"]
    assert attempt["reason"] == "walltime: the job has had its 3 s"
    assert [event["phase"] for event in server.events(sandbox.key, "phase-entered")] == ["compute"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wall_time_seconds = 0", "wall_time_seconds: 0 is no number of seconds"),
        ('wall_time_seconds = "1h"', "wall_time_seconds: '1h' is no number of seconds"),
        ("wall_time_seconds = 5", "the wall time of 5 s leaves the payload no time"),
        (
            'on_wall_time = "stop"',
            "plan.on_wall_time: 'stop' is not one of next-attempt, hold, fail",
        ),
    ],
)
def test_a_wall_time_that_cannot_be_kept_is_refused(sandbox: Sandbox, text: str, said: str) -> None:
    sandbox.write("plan.toml", f'{text}\n[[phase]]\nname = "a"\nrun = ["true"]\n')
    assert sandbox.run("--plan", "plan.toml") == BAD_CONFIG
    assert said in sandbox.messages


def test_a_wall_time_of_a_phase_that_nobody_else_runs_is_refused(sandbox: Sandbox) -> None:
    sandbox.write("plan.toml", '[[phase]]\nname = "a"\nwall_time_seconds = 60\n')
    assert sandbox.run("--plan", "plan.toml", "--", "true") == BAD_CONFIG
    assert "phase a: wall_time_seconds: stands in a phase without run" in sandbox.messages
