"""Signals reach the payload as HTCondor sends them, and nothing else of the payload."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import pytest
from tests.process.execution import Sandbox, wait_for

NewSandbox = Callable[..., Sandbox]

#: SIGKILL and SIGSTOP cannot be caught; SIGCHLD is the wrapper's own.
FORWARDED = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD})

_RECORDER = """
import os, signal
everything = signal.valid_signals()
signal.pthread_sigmask(signal.SIG_BLOCK, everything)
child = os.fork()
log = open("child" if child == 0 else "top", "a", buffering=1)
log.write("ready\\n")
while True:
    info = signal.sigwaitinfo(everything)
    log.write("%d\\n" % info.si_signo)
    if info.si_signo == signal.SIGTERM:
        os._exit(42)
"""


def test_every_catchable_signal_reaches_the_top_process_and_only_that(sandbox: Sandbox) -> None:
    process = sandbox.start("--kill-grace", "1", "--", sandbox.python_script("rec", _RECORDER))
    sandbox.wait_text("top", "ready")
    sandbox.wait_text("child", "ready")
    in_order = [number for number in FORWARDED if number != signal.SIGTERM] + [signal.SIGTERM]
    for number in in_order:
        seen = len(sandbox.read("top").splitlines())
        os.kill(process.pid, number)
        wait_for(
            lambda seen=seen: len(sandbox.read("top").splitlines()) > seen,  # type: ignore[misc]
            f"signal {int(number)} in {sandbox.read('top').split()}",
        )
    assert process.wait(60) == 42
    assert sandbox.read("top").split() == ["ready", *(str(int(number)) for number in in_order)]
    # The forked process heard nothing until the clearing out after the top process ended.
    assert sandbox.read("child").split() == ["ready", str(int(signal.SIGTERM))]


def test_the_payload_inherits_dispositions_and_mask_as_without_a_wrapper(
    sandbox: Sandbox,
) -> None:
    look = ["sh", "-c", "exec grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status"]
    ignoring = "trap '' HUP USR1; exec \"$@\""
    bare = subprocess.run(
        ["sh", "-c", ignoring, "sh", *look], stdout=subprocess.PIPE, check=True
    ).stdout
    process = subprocess.Popen(
        ["sh", "-c", ignoring, "sh", *sandbox.argv("run", "--", *look)],
        cwd=sandbox.path,
        env=sandbox.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert _masks(output) == _masks(bare)


def _masks(status: bytes) -> dict[str, int]:
    # glibc's posix_spawn leaves its own two signals (32, 33) ignored; no program can use them.
    internal = 1 << 31 | 1 << 32
    return {
        line.split(":")[0]: int(line.split(":")[1], 16) & ~internal
        for line in status.decode().splitlines()
    }


def test_term_gives_the_lease_up_and_the_payloads_status_stands(sandbox: Sandbox) -> None:
    process = sandbox.start(
        "--", sandbox.script("p", "trap 'exit 9' TERM; echo > on; sleep 60 & wait")
    )
    sandbox.wait_text("on", "\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 9
    subjob = sandbox.server.subjob(sandbox.key)
    assert subjob["status"] == "abandoned"
    assert subjob["attempts"][-1]["reason"] == "asked to end by SIGTERM"


@pytest.mark.parametrize("plan", ["", '[[phase]]\nname = "a"\n'])
def test_a_payload_that_ends_well_because_of_term_is_not_done(
    new_sandbox: NewSandbox, sandbox: Sandbox, plan: str
) -> None:
    options = ("--plan", "plan.toml") if plan else ()
    payload = "trap 'exit 0' TERM; echo > on; [ -e last ] && exit 0; while :; do sleep 0.05; done"
    sandbox.write("plan.toml", plan)
    process = sandbox.start(*options, "--", sandbox.script("p", payload))
    sandbox.wait_text("on", "\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0  # as without us; HTCondor runs the job again all the same
    subjob = sandbox.server.subjob(sandbox.key)
    assert (subjob["status"], subjob["outcome"]) == ("abandoned", None)
    again = new_sandbox(sandbox.server, key=sandbox.key, job_starts=1, shadow_starts=2)
    again.write("plan.toml", plan)
    again.write("last", "")
    assert again.run(*options, "--", again.script("p", payload)) == 0
    assert again.read("on")
    assert again.server.subjob(again.key)["status"] != "abandoned"


def test_a_once_phase_that_ends_well_despite_term_is_complete(sandbox: Sandbox) -> None:
    process = sandbox.start(
        *("--restart", "once", "--"),
        sandbox.script("p", "trap 'exit 0' TERM; echo > on; sleep 60 & wait"),
    )
    sandbox.wait_text("on", "\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert sandbox.server.subjob(sandbox.key)["outcome"] == "complete"


def test_the_kill_signal_that_the_ad_names_is_an_eviction_too(sandbox: Sandbox) -> None:
    sandbox.job_ad["KillSig"] = "SIGUSR2"
    process = sandbox.start(
        "--", sandbox.script("p", "trap 'exit 9' USR2; echo > on; sleep 60 & wait")
    )
    sandbox.wait_text("on", "\n")
    process.send_signal(signal.SIGUSR2)
    assert process.wait(60) == 9
    assert sandbox.server.subjob(sandbox.key)["status"] == "abandoned"


def test_term_between_phases_stops_the_walk_and_does_not_look_like_success(
    sandbox: Sandbox,
) -> None:
    first = sandbox.script("first", "trap 'exit 0' TERM; echo > on; sleep 60 & wait")
    sandbox.write(
        "plan.toml",
        f'[[phase]]\nname = "one"\nrun = ["{first}"]\n'
        '[[phase]]\nname = "two"\nrun = ["touch", "second"]\n',
    )
    process = sandbox.start("--plan", "plan.toml")
    sandbox.wait_text("on", "\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
    assert not (sandbox.path / "second").exists()
    assert sandbox.server.subjob(sandbox.key)["status"] == "abandoned"


def test_term_while_waiting_for_the_lease_ends_the_wrapper_at_once(sandbox: Sandbox) -> None:
    sandbox.server.command(sandbox.key, "acquire", nonce="n" * 32, kind="job", ttl_seconds=600)
    process = sandbox.start("--", "touch", "ran")
    sandbox.wait_text("stderr", "still live")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
    assert not (sandbox.path / "ran").exists()
