"""A scratch directory with the ads that a starter writes, and processes in it, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.serving import ServerProcess

T = TypeVar("T")
WAIT_SECONDS = 60.0


def wait_for(condition: Callable[[], T], what: str, seconds: float = WAIT_SECONDS) -> T:
    """Return the first true value of a condition; fails when it stays untrue."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)
    return value


class Sandbox:
    """One start of a job on one execution point."""

    def __init__(
        self,
        path: Path,
        pyz: Path,
        server: ServerProcess,
        key: str,
        *,
        job_starts: int = 0,
        shadow_starts: int = 1,
        slot: int = 1,
        claim: int = 1,
    ) -> None:
        path.mkdir()
        self.path = path
        self.pyz = pyz
        self.server = server
        self.key = key
        self.python: str | None = None
        #: What follows the pyz on its command line; nothing where a site puts it before a job.
        self.call: tuple[str, ...] = ("run",)
        self.running: list[subprocess.Popen[bytes]] = []
        self.job_ad: dict[str, object] = {
            "GlobalJobId": "ap1.test#42.0#1795225431",
            "ClusterId": 42,
            "ProcId": 0,
            "NumJobStarts": job_starts,
            "NumShadowStarts": shadow_starts,
            "ShadowBday": 1795225431 + shadow_starts,
            "PublicClaimId": f"<10.0.0.1:9618?sock=startd_1>#1795225000#{claim}#...",
        }
        self.machine_ad: dict[str, object] = {
            "Name": f"slot1_{slot}@ep1.test",
            "Machine": "ep1.test",
        }
        self.environ = {
            "PATH": f"{sys.base_prefix}/bin:/usr/bin:/bin",
            "HOME": str(path),
            "HTLEASE_URL": server.url,
            "HTLEASE_KEY": key,
            "_CONDOR_SCRATCH_DIR": str(path),
            "_CONDOR_JOB_AD": str(path / ".job.ad"),
            "_CONDOR_MACHINE_AD": str(path / ".machine.ad"),
        }
        self.write("htlease.token", server.admin_token).chmod(0o600)

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Put a file into the sandbox."""
        path = self.path / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def script(self, name: str, text: str) -> str:
        """Put a shell script into the sandbox and return how to call it."""
        self.write(name, f"#!/bin/sh\n{text}\n", 0o755)
        return f"./{name}"

    def python_script(self, name: str, text: str) -> str:
        """Put a Python script into the sandbox and return how to call it."""
        self.write(name, f"#!{sys.executable} -IS\n{text}\n", 0o755)
        return f"./{name}"

    def argv(self, *arguments: str) -> list[str]:
        """Return the command line of the pyz."""
        return [*([self.python] if self.python else []), str(self.pyz), *arguments]

    def start(
        self,
        *arguments: str,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int | None = None,
        pass_fds: tuple[int, ...] = (),
    ) -> subprocess.Popen[bytes]:
        """Start `htlease-ep.pyz CALL ARGUMENTS`; stderr goes to a file of that name."""
        for name, ad in ((".job.ad", self.job_ad), (".machine.ad", self.machine_ad)):
            lines = [
                f'{attribute} = "{value}"' if isinstance(value, str) else f"{attribute} = {value}"
                for attribute, value in ad.items()
            ]
            self.write(name, "\n".join(lines) + "\n")
        process = subprocess.Popen(
            self.argv(*self.call, *arguments),
            cwd=self.path,
            env=self.environ,
            stdin=stdin,
            stdout=stdout,
            stderr=(self.path / "stderr").open("ab") if stderr is None else stderr,
            pass_fds=pass_fds,
        )
        self.running.append(process)
        return process

    def run(
        self,
        *arguments: str,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int | None = None,
    ) -> int:
        """Run `htlease-ep.pyz CALL ARGUMENTS` to its end and return its status."""
        process = self.start(*arguments, stdin=stdin, stdout=stdout, stderr=stderr)
        self.output, _ = process.communicate(timeout=WAIT_SECONDS)
        return process.returncode

    @property
    def messages(self) -> str:
        """What was written on stderr so far."""
        path = self.path / "stderr"
        return path.read_text(errors="replace") if path.exists() else ""

    def read(self, name: str) -> str:
        """Return a file's text, or nothing."""
        path = self.path / name
        return path.read_text() if path.exists() else ""

    def wait_text(self, name: str, text: str = "") -> str:
        """Wait until a file holds some text and return all of it."""
        return wait_for(
            lambda: self.read(name) if text in self.read(name) and self.read(name) else "",
            f"{text!r} in {name}; messages: {self.messages}",
        )

    def kill_all(self) -> None:
        """Kill what is still running, payloads included."""
        for process in self.running:
            if process.poll() is None:
                for pid in [*below(process.pid), process.pid]:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                process.wait(WAIT_SECONDS)


def below(pid: int) -> list[int]:
    """Return the processes below one."""
    found: list[int] = []
    parents = [pid]
    while parents:
        parent = parents.pop()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
                parents.append(int(entry.name))
    return found


def process_state(pid: int) -> str | None:
    """Return the state letter of a process (R, S, T, Z, ...), or None when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def marked(mark: str) -> list[int]:
    """Return the processes whose environment carries a mark, zombies not counted."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if process_state(pid) not in (None, "Z")]


def server_away(job: Sandbox) -> None:
    """Name a server to the job that is not there."""
    job.environ.update(HTLEASE_URL="http://127.0.0.1:9", HTLEASE_WAIT_SERVER="0")


NewSandbox = Callable[..., Sandbox]
