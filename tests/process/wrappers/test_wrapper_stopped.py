"""A wrapper that is stopped and goes on (`condor_suspend`, `condor_continue`, a frozen host) fails nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

from tests.process.execution import Sandbox, below, process_state, wait_for
from tests.process.test_flags import put
from tests.serving import ServerProcess

NewSandbox = Callable[..., Sandbox]
OUT_OF_TIME = 79

_EXCLUSIVE = """
ttl_seconds = 2
[[phase]]
name = "x"
run = ["./p"]
restart = "once"
exclusive = true
"""
_UNTIL_GO = "echo > on; while [ ! -e go ]; do sleep 0.05; done; exit 4"


def _suspend(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Stop a wrapper and all below it for a while, as a starter does it."""
    stopped = [process.pid, *below(process.pid)]
    _signal(stopped, signal.SIGSTOP)
    wait_for(lambda: process_state(process.pid) == "T", "the wrapper to be stopped")
    time.sleep(seconds)
    _signal(stopped, signal.SIGCONT)


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # a `sleep` of the payload's
            os.kill(pid, number)


def test_an_exclusive_payload_goes_on_after_a_stop_beyond_its_lease(sandbox: Sandbox) -> None:
    sandbox.write("plan.toml", _EXCLUSIVE)
    sandbox.script("p", _UNTIL_GO)
    process = sandbox.start("--plan", "plan.toml")
    sandbox.wait_text("on", "\n")
    _suspend(process, 3)
    _suspend(process, 1)
    sandbox.write("go", "")
    assert process.wait(60) == 4
    assert len(sandbox.server.subjob(sandbox.key)["attempts"]) == 1
    assert "internal error" not in sandbox.messages


def test_a_stop_beyond_the_wall_time_counts_as_having_had_it(sandbox: Sandbox) -> None:
    process = sandbox.start(
        *("--wall-time", "3", "--kill-grace", "1", "--"), sandbox.script("p", _UNTIL_GO)
    )
    sandbox.wait_text("on", "\n")
    _suspend(process, 4)
    assert process.wait(60) == OUT_OF_TIME


def test_stops_while_waiting_for_the_server_and_for_the_lease(
    new_sandbox: NewSandbox, own_server: ServerProcess
) -> None:
    box = new_sandbox(own_server)
    nonce = "n" * 32
    fence = own_server.command(box.key, "acquire", nonce=nonce, kind="job", ttl_seconds=30)["fence"]
    own_server.stop()
    process = box.start("--", "sh", "-c", "exit 4")
    box.wait_text("stderr", "the server does not answer")
    _suspend(process, 2)
    own_server.start()
    box.wait_text("stderr", "waiting up to 600 s")
    _suspend(process, 2)
    own_server.command(box.key, "abandon", fence=fence, nonce=nonce)
    assert process.wait(60) == 4
    assert "internal error" not in box.messages


def test_a_stop_while_a_phase_is_held_back(sandbox: Sandbox) -> None:
    server = sandbox.server
    flag = f"f{os.getpid()}"
    sandbox.write(
        "plan.toml", f'[[phase]]\nname = "x"\nrun = ["sh", "-c", "exit 4"]\nneeds = ["{flag}"]\n'
    )
    put(server, flag, False)
    process = sandbox.start("--plan", "plan.toml")
    sandbox.wait_text("stderr", "waiting up to")
    _suspend(process, 2)
    put(server, flag, True)
    assert process.wait(60) == 4


def test_an_alarm_that_was_set_before_the_wrapper_rings_in_the_payload(sandbox: Sandbox) -> None:
    payload = sandbox.script("p", "trap 'exit 7' ALRM; echo > on; while :; do sleep 0.1; done")
    argv = sandbox.argv("run", "--", payload)
    before = f"import os, signal; signal.alarm(2); os.execv({argv[0]!r}, {argv!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", before], cwd=sandbox.path, env=sandbox.environ
    )
    sandbox.running.append(process)
    assert process.wait(60) == 7
