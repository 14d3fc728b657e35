"""A stand-in for HTCondor on one machine: restarts a job as a schedd would, with its counters.

It is no HTCondor: no matchmaking, no daemons, no file transfer. It gives each start a fresh
scratch directory with `.job.ad` and `.machine.ad` as a starter writes them, counts like the
schedd and the shadow do, and starts the job again after an eviction or a dead "shadow".
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class LocalSite:
    """Runs one job at a time; the same calls as a pool."""

    address = "127.0.0.1"

    def __init__(self) -> None:
        self._top = Path(tempfile.mkdtemp(prefix="htlease-demo-"))
        self._started_at = int(time.time())
        self._job_starts = self._shadow_starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._is_counted = True
        self._ended = threading.Event()
        self._exit_code: int | None = None

    def describe(self) -> str:
        return "a local stand-in for the starter; NO HTCondor is involved"

    def submit(self, files: list[Path], description: Path) -> str:
        settings = {}
        for line in description.read_text().splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.lstrip().startswith("#"):
                settings[name.strip().lower()] = value.strip()
        command = [f"./{settings['executable']}", *shlex.split(settings["arguments"])]
        threading.Thread(
            target=self._restart_until_done, args=(files, command), daemon=True
        ).start()
        return "1.0"

    def _restart_until_done(self, files: list[Path], command: list[str]) -> None:
        while not self._ended.is_set():
            scratch = self._top / f"dir_{self._shadow_starts}"
            scratch.mkdir()
            for file in files:
                shutil.copy(file, scratch / file.name)
            self._shadow_starts += 1
            self._is_counted = True
            self._write_ads(scratch)
            environment = {
                **os.environ,
                "_CONDOR_SCRATCH_DIR": str(scratch),
                "_CONDOR_JOB_AD": str(scratch / ".job.ad"),
                "_CONDOR_MACHINE_AD": str(scratch / ".machine.ad"),
            }
            self._process = subprocess.Popen(
                command,
                cwd=scratch,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            code = self._process.wait()
            if self._is_counted:
                self._job_starts += 1
            if self._was_evicted:
                self._was_evicted = False
                time.sleep(1)
                continue
            self._exit_code = code
            self._ended.set()

    _was_evicted = False

    def _write_ads(self, scratch: Path) -> None:
        job_id = f"local#1.0#{self._started_at}"
        job_ad = {
            "GlobalJobId": f'"{job_id}"',
            "ClusterId": "1",
            "ProcId": "0",
            "JobUniverse": "5",
            "NumJobStarts": str(self._job_starts),
            "NumShadowStarts": str(self._shadow_starts),
            "ShadowBday": str(int(time.time())),
            "PublicClaimId": f'"<127.0.0.1:0>#{self._started_at}#{self._shadow_starts}#..."',
        }
        machine_ad = {"Name": '"slot1_1@local"', "Machine": '"local"'}
        for name, ad in ((".job.ad", job_ad), (".machine.ad", machine_ad)):
            text = "".join(f"{attribute} = {value}\n" for attribute, value in ad.items())
            (scratch / name).write_text(text)

    def evict(self) -> None:
        self._was_evicted = True
        self._signal(signal.SIGTERM)

    def kill_shadow(self) -> None:
        self._was_evicted = True
        self._is_counted = False
        self._shadow_starts += 1  # the shadow start in between that finds the claim gone
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._process.send_signal(number)
        if number == signal.SIGKILL:  # as the starter does, with the whole family
            for child in children:
                os.kill(int(child), number)

    def wait_for(self, found: Callable[[], Any], what: str, timeout_seconds: float) -> Any:
        end = time.monotonic() + timeout_seconds
        while time.monotonic() < end:
            if value := found():
                return value
            time.sleep(0.2)
        raise TimeoutError(f"waited {timeout_seconds:.0f} s in vain for {what}")

    def end(self) -> str:
        self.wait_for(self._ended.is_set, "the job to end", 120)
        return f"job 1.0 exit code {self._exit_code}"

    def close(self) -> None:
        shutil.rmtree(self._top, ignore_errors=True)
