"""Calls the hook that a site had before: an execution point has one keyword at a time.

It gets what HTCondor gave us: the same input, and the environment as it was. Its stderr is ours.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from htlease.condor.job_ad import parse_ad
from htlease.execution.process_start import at_start
from htlease_hooks import hook_reply
from htlease_hooks.hook_reply import Answer


@dataclass(frozen=True)
class SiteHookResult:
    """What the site's hook did."""

    stdout: str
    exit_status: int

    @property
    def has_failed(self) -> bool:
        """Tell whether HTCondor would keep the job from starting.

        A `HookStatusCode` overrides the exit status. Source: `HookPrepareJobClient::hookExited`.
        """
        code = parse_ad(self.stdout).get("hookstatuscode")
        return bool(code) if isinstance(code, int) else self.exit_status != 0


def run_site_hook(
    path: str, arguments: Sequence[str], stdin: str, limit_seconds: float
) -> SiteHookResult:
    """Run the site's hook; one that does not end in time is killed and counts as failed.

    One that cannot be run, or that is killed by a signal, is a fault of this execution point.
    """
    try:
        process = subprocess.Popen(
            [path, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=at_start().environ(),
            start_new_session=True,
        )
    except OSError as error:
        return _failed(f"the site's hook {path} cannot be run: {error.strerror}")
    try:
        output, _ = process.communicate(stdin.encode(errors="surrogateescape"), limit_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return _failed(f"the site's hook {path} did not end in {limit_seconds:g} s")
    if process.returncode < 0:
        return _failed(f"the site's hook {path} died of signal {-process.returncode}")
    return SiteHookResult(output.decode(errors="surrogateescape"), process.returncode)


def _failed(message: str) -> SiteHookResult:
    failed = Answer(hook_reply.CHAIN_FAILED, message)
    hook_reply.say(message)
    return SiteHookResult(failed.text(), failed.exit_status)
