"""What a payload leaves running is ended, and nothing becomes a zombie."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from tests.process.execution import Sandbox, below, marked, process_state, wait_for

_LEFTOVERS = {
    "a child in the background": "sleep 600 & echo > on",
    "an orphan": "(sleep 600 & echo > on) & wait",
    "an orphan in a session of its own": "(setsid sleep 600 & echo > on) & wait",
    "one that ignores SIGTERM": "sh -c 'trap \"\" TERM; echo > on; sleep 600' & ",
    "one that is stopped": "sleep 600 & kill -STOP $!; echo > on",
    "a daemon": "setsid sh -c 'setsid sleep 600 & echo > on' & wait",
}


@pytest.mark.parametrize("what", _LEFTOVERS)
def test_leftovers_are_ended(sandbox: Sandbox, what: str) -> None:
    mark = f"MARK={sandbox.path}"
    sandbox.environ["MARK"] = str(sandbox.path)
    waiting = "while [ ! -e on ]; do sleep 0.05; done; exit 3"
    assert sandbox.run("--", "sh", "-c", f"{_LEFTOVERS[what]}\n{waiting}") == 3
    assert marked(mark) == []


def test_leftovers_of_one_phase_do_not_see_the_next(sandbox: Sandbox) -> None:
    first = sandbox.script("first", "setsid sleep 600 & echo $! > pid")
    second = sandbox.script("second", 'test -e "/proc/$(cat pid)" && exit 9; exit 0')
    sandbox.write(
        "plan.toml",
        f'[[phase]]\nname = "one"\nrun = ["{first}"]\n[[phase]]\nname = "two"\nrun = ["{second}"]\n',
    )
    assert sandbox.run("--plan", "plan.toml") == 0


def test_orphans_that_end_while_the_payload_runs_are_reaped(sandbox: Sandbox) -> None:
    process = sandbox.start(
        "--",
        sandbox.script("p", "(sleep 0.1 & echo $! > orphan); echo > on; read x < fifo; exit 2"),
    )
    os.mkfifo(sandbox.path / "fifo")
    sandbox.wait_text("on", "\n")
    orphan = int(sandbox.read("orphan"))
    wait_for(lambda: process_state(orphan) is None, "the orphan to be reaped")
    assert len([pid for pid in below(process.pid) if process_state(pid) == "Z"]) == 0
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def test_a_payload_that_exits_is_not_held_up_when_it_leaves_nothing(sandbox: Sandbox) -> None:
    process = sandbox.start("--", "sh", "-c", "exit 0")
    assert process.wait(60) == 0
    assert below(process.pid) == []


def test_the_wrapper_sleeps_while_its_payload_runs(sandbox: Sandbox) -> None:
    process = sandbox.start("--", sandbox.script("p", "echo > on; read x < fifo"))
    os.mkfifo(sandbox.path / "fifo")
    sandbox.wait_text("on", "\n")

    def switches() -> int:
        found = 0
        for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
            for line in status.read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    found += int(line.split()[1])
        return found

    # A look at the details file each second is all that happens; a busy loop would show hundreds.
    until, before = time.monotonic() + 3.0, switches()
    wait_for(lambda: time.monotonic() > until, "three seconds")
    assert switches() - before < 60
    process.send_signal(signal.SIGTERM)
    process.wait(60)


#: Leaves one behind that ignores SIGTERM, and ends at SIGTERM itself.
_STUBBORN = """
sh -c 'trap "" TERM; echo $$ > left; while :; do sleep 0.05; done' &
trap 'exit 9' TERM
echo $$ > top
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize("is_exclusive", [False, True])
def test_the_lease_is_given_up_before_leftovers_are_gone_unless_they_must_be(
    sandbox: Sandbox, is_exclusive: bool
) -> None:
    sandbox.script("p", _STUBBORN)
    sandbox.write(
        "plan.toml",
        f'[[phase]]\nname = "a"\nrun = ["./p"]\nexclusive = {str(is_exclusive).lower()}\n',
    )
    process = sandbox.start("--plan", "plan.toml")
    top, left = (int(sandbox.wait_text(name, "\n")) for name in ("top", "left"))
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: process_state(top) is None, "the payload to end")
    if not is_exclusive:
        wait_for(lambda: sandbox.server.subjob(sandbox.key)["status"] == "abandoned", "the lease")
        assert process_state(left)  # so HTCondor may kill the wrapper now
    while sandbox.server.subjob(sandbox.key)["status"] != "abandoned":
        assert process.poll() is None
    assert not (is_exclusive and process_state(left))
    assert process.wait(60) == 9
