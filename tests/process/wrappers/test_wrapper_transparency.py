"""Streams, terminal, environment and open files are the payload's own."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
from pathlib import Path

from tests.process.execution import Sandbox, wait_for

_OURS = ("HTLEASE", "_CONDOR")


def test_output_on_both_streams_is_byte_exact(sandbox: Sandbox) -> None:
    data = os.urandom(1 << 20)
    (sandbox.path / "data").write_bytes(data)
    process = sandbox.start("--", "sh", "-c", "cat data; cat data >&2", stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=60)
    assert (output, errors) == (data, data)


def test_the_environment_is_the_given_one_plus_ours(sandbox: Sandbox) -> None:
    sandbox.environ["ODD"] = "line\nbreak=é"
    sandbox.run("--", "env", "-0")
    given = {name: text for name, text in sandbox.environ.items() if not name.startswith(_OURS)}
    seen = dict(
        entry.split("=", 1) for entry in sandbox.output.decode().split("\0") if "=" in entry
    )
    assert {name: text for name, text in seen.items() if not name.startswith(_OURS)} == given
    assert "LC_CTYPE" not in seen  # Python would have put it there
    assert {name for name in seen if name.startswith("HTLEASE")} == {
        *("HTLEASE", "HTLEASE_KEY", "HTLEASE_ATTEMPT", "HTLEASE_ATTEMPT_NUMBER"),
        *("HTLEASE_PHASE", "HTLEASE_FENCE", "HTLEASE_OUTPUT_PREFIX", "HTLEASE_DETAILS"),
        *("HTLEASE_URL", "HTLEASE_SANDBOX", "HTLEASE_SANDBOX_KEY"),
    }
    assert seen["HTLEASE_ATTEMPT"] == "ap1.test#42.0#1795225431@1.1"
    assert seen["HTLEASE_OUTPUT_PREFIX"] == "attempt-1-fence-1"
    assert seen["HTLEASE"] == str(sandbox.pyz)


def test_the_token_is_in_no_file_argument_or_variable_of_ours(sandbox: Sandbox) -> None:
    token = sandbox.server.admin_token
    (sandbox.path / "htlease.token").unlink()
    credentials = sandbox.path / "credentials"
    credentials.mkdir()
    (credentials / "htlease.use").write_text(token)
    sandbox.environ["_CONDOR_CREDS"] = str(credentials)
    look = 'cat .htlease.json .htlease/* 2>/dev/null; env; tr "\\0" " " < /proc/$PPID/cmdline'
    assert sandbox.run("--", "sh", "-c", look) == 0
    assert b"HTLEASE_KEY" in sandbox.output
    assert token.encode() not in sandbox.output
    assert token not in sandbox.messages


def test_only_the_job_user_can_read_the_nonce(sandbox: Sandbox) -> None:
    assert sandbox.run("--", "stat", "-c", "%a", ".htlease.json", ".htlease") == 0
    assert sandbox.output == b"600\n700\n"


def test_inherited_file_descriptors_stay_open(sandbox: Sandbox) -> None:
    reading, writing = os.pipe()
    process = sandbox.start(
        "--",
        "sh",
        "-c",
        f"echo through >/proc/self/fd/{writing}; ls /proc/self/fd",
        pass_fds=(writing,),
    )
    os.close(writing)
    output, _ = process.communicate(timeout=60)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "through\n"
    # 0, 1, 2, the one passed, and the one with which `ls` reads the folder.
    assert len(output.split()) == 5


def test_arguments_that_are_not_utf8_come_through(sandbox: Sandbox) -> None:
    process = subprocess.Popen(
        [*sandbox.argv("run", "--", "printf", "%s"), b"\xff\xfe --"],
        cwd=sandbox.path,
        env=sandbox.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.communicate(timeout=60)[0] == b"\xff\xfe --"


def test_a_closed_stderr_does_not_hurt_the_payload(sandbox: Sandbox) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    sandbox.job_ad.pop("NumJobStarts")  # makes the wrapper say something
    assert sandbox.run("--", "sh", "-c", "exit 5", stderr=writing) == 5
    os.close(writing)


class _Terminal:
    """The leader of a session that has a terminal, seen from the terminal's other side."""

    def __init__(self, sandbox: Sandbox, program: str, *arguments: str) -> None:
        self.text = ""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(sandbox.path)
            os.execve(program, [program, *arguments], sandbox.environ)

    def wait_text(self, text: str) -> None:
        def has_come() -> bool:
            if select.select([self._fd], [], [], 0)[0]:
                try:
                    self.text += os.read(self._fd, 4096).decode()
                except OSError:
                    pass  # the other side is closed
            return text in self.text

        wait_for(has_come, f"{text!r} on the terminal")

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def test_the_payload_has_the_terminal_and_its_keys(sandbox: Sandbox) -> None:
    payload = sandbox.script(
        "p",
        'trap "echo got-int; exit 8" INT\n'
        'read line; echo "read:$line"; test -t 0 && test -t 1 && echo is-tty\n'
        "while :; do sleep 0.1; done",
    )
    terminal = _Terminal(sandbox, *sandbox.argv("run", "--", payload))
    terminal.type(b"hello\n")
    terminal.wait_text("read:hello")
    terminal.wait_text("is-tty")
    terminal.type(b"\x03")
    terminal.wait_text("got-int")
    assert terminal.wait() == 8


def test_the_wrapper_stops_and_goes_on_with_its_payload(sandbox: Sandbox) -> None:
    # A shell that looks after the wrapper: Ctrl-Z must hand the terminal back to it.
    job = " ".join(sandbox.argv("run", "--", "sh", "-c", "'echo on; read x; echo got:$x; exit 6'"))
    terminal = _Terminal(sandbox, "/bin/bash", "--norc", "--noprofile", "-i")
    terminal.type(job.encode() + b"\n")
    terminal.wait_text("on\r\n")
    terminal.type(b"\x1a")
    terminal.wait_text("Stopped")
    terminal.type(b"fg\n")
    terminal.wait_text("run --")
    terminal.type(b"word\n")
    terminal.wait_text("got:word")
    terminal.type(b"echo status=$?\n")
    terminal.wait_text("status=6")
    terminal.type(b"exit\n")
    assert terminal.wait() == 0


def test_the_terminals_settings_are_left_alone(sandbox: Sandbox) -> None:
    leader, follower = pty.openpty()
    before = termios.tcgetattr(follower)
    sandbox.run("--", "true", stdin=follower, stdout=follower)
    assert termios.tcgetattr(follower) == before
    os.close(leader)
    os.close(follower)


def test_a_suspended_payload_outside_a_terminal_does_not_stop_the_wrapper(
    sandbox: Sandbox,
) -> None:
    process = sandbox.start(
        "--ttl",
        "4",
        "--",
        sandbox.script("p", "echo $$ > pid; read x; exit 4"),
        stdin=subprocess.PIPE,
    )
    payload = int(sandbox.wait_text("pid", "\n"))
    os.kill(payload, signal.SIGSTOP)
    wait_for(
        lambda: (
            len(sandbox.server.subjob(sandbox.key)["attempts"]) == 1
            and Path(f"/proc/{process.pid}").exists()
        ),
        "the lease",
    )
    os.kill(payload, signal.SIGCONT)
    process.communicate(b"x\n", timeout=60)
    assert process.returncode == 4
