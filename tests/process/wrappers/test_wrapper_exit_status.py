"""The wrapper ends exactly as its payload ended."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.process.execution import Sandbox
from tests.serving import ServerProcess

DEADLY = sorted(
    signal.valid_signals()
    - {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
    - {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
)


def test_all_256_exit_codes_come_through(
    new_sandbox: Callable[..., Sandbox], server: ServerProcess
) -> None:
    boxes = [new_sandbox(server) for _ in range(256)]
    with ThreadPoolExecutor(4) as pool:
        seen = list(
            pool.map(lambda box: boxes[box].run("--", "sh", "-c", f"exit {box}"), range(256))
        )
    assert seen == list(range(256))


def test_death_by_every_signal_comes_through(
    new_sandbox: Callable[..., Sandbox], server: ServerProcess
) -> None:
    boxes = {number: new_sandbox(server) for number in DEADLY}
    with ThreadPoolExecutor(4) as pool:
        seen = list(
            pool.map(
                lambda number: boxes[number].run("--", "sh", "-c", f"kill -{int(number)} $$"),
                DEADLY,
            )
        )
    assert seen == [-number for number in DEADLY]


def test_a_payload_that_dumps_core_leaves_no_second_core_of_the_wrapper(sandbox: Sandbox) -> None:
    assert sandbox.run("--", "sh", "-c", "ulimit -c 0; kill -SEGV $$") == -signal.SIGSEGV
    assert not [path for path in sandbox.path.iterdir() if path.name.startswith("core")]


def test_how_the_payload_ended_is_recorded(
    new_sandbox: Callable[..., Sandbox], server: ServerProcess
) -> None:
    by_code, by_signal = new_sandbox(server), new_sandbox(server)
    by_code.run("--", "sh", "-c", "exit 3")
    by_signal.run("--", "sh", "-c", "kill -USR1 $$")
    assert server.subjob(by_code.key)["exit_code"] == 3
    assert server.subjob(by_signal.key)["exit_signal"] == signal.SIGUSR1
    assert server.subjob(by_code.key)["status"] == "exited"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("nosuch-program", 127, "nosuch-program does not exist in PATH"),
        ("./nosuch", 127, "./nosuch does not exist in"),
        ("./plain", 126, "./plain is not executable; chmod +x"),
        ("plain", 127, "./plain does"),
        ("./no-interpreter", 126, "the interpreter in its first line does not exist"),
        ("./garbage", 126, "no program and no script with a #! line"),
        ("/", 126, "cannot be run"),
    ],
)
def test_a_payload_that_cannot_start_says_why(
    sandbox: Sandbox, command: str, code: int, said: str
) -> None:
    sandbox.write("plain", "text")
    sandbox.write("no-interpreter", "#!/nosuch/sh\n", 0o755)
    sandbox.write("garbage", "\1\2\3", 0o755)
    assert sandbox.run("--", command) == code
    assert said in sandbox.messages
    assert sandbox.server.subjob(sandbox.key)["exit_code"] == code


def test_nothing_of_the_wrapper_is_left_in_the_sandbox(sandbox: Sandbox) -> None:
    before = {"htlease.token", ".job.ad", ".machine.ad", "stderr"}
    assert sandbox.run("--", "true") == 0
    assert {path.name for path in sandbox.path.iterdir()} == before


def test_a_healthy_first_start_writes_no_message(sandbox: Sandbox) -> None:
    assert sandbox.run("--", "true") == 0
    assert sandbox.messages == ""


def test_stdin_stays_open_for_the_payload_and_the_wrapper_reads_none_of_it(
    sandbox: Sandbox,
) -> None:
    process = sandbox.start("--", "cat", stdin=subprocess.PIPE)
    output, _ = process.communicate(b"\0\xff\n" * 100_000, timeout=60)
    assert output == b"\0\xff\n" * 100_000
    assert process.returncode == 0
