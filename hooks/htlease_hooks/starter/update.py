"""UPDATE_JOB_INFO: renews the lease of a running job, and stops a job that has lost it.

Runs in the starter as the job's user; HTCondor neither waits for it nor heeds how it ends, may
call it before the job starts, after it ended, while the shadow is away, and while an earlier call
still runs.
"""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Mapping, Sequence

from htlease.condor.job_ad import is_in_docker
from htlease.errors import Refused, ServerUnavailable
from htlease.execution.job import sandbox_of
from htlease.execution.process_start import at_start
from htlease.execution.processes import start_ticks
from htlease.execution.sandbox_state import STATE_FILE, SandboxState
from htlease.rules import messages as m
from htlease.wire.lease_client import LeaseClient
from htlease_hooks.hook_reply import say
from htlease_hooks.starter.context import StartContext
from htlease_hooks.starter.hook_state import HookState
from htlease_hooks.starter.prepare import keep
from htlease_hooks.starter.process_tree import container_mark, job_mark, stop
from htlease_hooks.timeout import within

KILL_GRACE_SECONDS = 10.0
_OWN_SECONDS = 5.0
_CHAIN_SECONDS = 60.0
_LOST_CODES = ("superseded-attempt", "stale-fence", "unknown-subjob", "subjob-closed")


class Task(enum.Enum):
    """What a call has to do."""

    NOTHING = "nothing"
    #: The server did not answer before the job began.
    ACQUIRE = "acquire"
    RENEW = "renew"


def task_for(
    job_state: str | None, has_process: bool, state: SandboxState | None, is_wrapped: bool
) -> Task:
    """Decide what a call has to do; pure.

    A call that comes late, when the job has ended, must not keep or revive the lease: what tells
    is whether the job's process is there, not `JobState`, which may be stale.
    """
    if state is None or is_wrapped or job_state == "Exited":
        return Task.NOTHING
    if job_state is not None and not has_process:
        return Task.NOTHING
    if state.fence is not None:
        return Task.RENEW
    return Task.ACQUIRE if job_state is not None else Task.NOTHING


def main(name: str, arguments: Sequence[str]) -> int:
    """Do what one call has to do; always returns 0, which HTCondor does not look at."""
    ad_text = sys.stdin.buffer.read().decode("utf-8", errors="surrogateescape")
    environ = at_start().environ()
    hook_state = HookState(sandbox_of(environ))
    site = hook_state.site()
    if site is None:
        return 0
    limit_seconds = site.wait_server + KILL_GRACE_SECONDS + _OWN_SECONDS
    try:
        start = StartContext(ad_text, environ, site)
        if start.is_readable and not start.is_left_alone and hook_state.lock():
            within(limit_seconds, lambda: _keep_or_stop(start, environ))
    except Exception as error:  # the lease may be lost for it, but not the job
        say(f"job {start.job.global_job_id}: the lease cannot be kept: {error!r}")
    if site.chain_update:
        from htlease_hooks.site_hook import run_site_hook

        run_site_hook(site.chain_update, [], ad_text, _CHAIN_SECONDS)
    return 0


def _keep_or_stop(start: StartContext, environ: Mapping[str, str]) -> None:
    job_state, job_pid = start.ad.text("JobState"), start.ad.count("JobPid")
    state = start.state()
    has_process = job_pid is not None and start_ticks(job_pid) is not None
    task = task_for(job_state, has_process, state, state is not None and state.is_in_use)
    if task is Task.NOTHING or state is None:
        return
    client = start.connect(state)
    try:
        if task is Task.ACQUIRE:
            lease = client.acquire(start.acquire_command(state))
            keep(start, state, lease.grant)
            say(f"{state.key} attempt {lease.grant.attempt_number}: has the lease at last")
            return
        why = _renew(start, client, state, has_process)
    except ServerUnavailable as error:
        say(f"{state.key}: the server does not answer ({error}); the job goes on")
        start.show({"ChirpHTLeaseState": "server-away"})
        return
    except Refused as refused:
        if refused.code not in _LOST_CODES:
            say(f"{state.key}: the lease was not renewed: {refused}")
            return
        if refused.code == "subjob-closed" and refused.outcome == "complete":
            return
        why = refused.detail
    if why is None or job_pid is None:
        return
    say(f"{state.key}: {why}; the job is stopped")
    start.show({"ChirpHTLeaseState": "lost"})
    try:
        start.hook_state.write_stopped(why)
    except OSError:
        pass  # on a full disk, say; the job has to end all the same
    if is_in_docker(start.ad):
        mark: bytes | None = container_mark(start.job.sandbox)
    else:
        mark = job_mark(environ, os.getpid(), job_pid)
    is_gone = stop(job_pid, mark, KILL_GRACE_SECONDS)
    if is_gone and state.fence is not None and not _job_exit_was_first(start):
        client.call(m.Abandon(state.fence, state.nonce, why))


def _job_exit_was_first(start: StartContext) -> bool:
    """Tell whether JOB_EXIT has given the lease up; another may have it by now.

    Where it is not configured, the starter may have removed the whole sandbox already.
    """
    return start.state() is None and start.hook_state.folder.exists()


def _renew(
    start: StartContext, client: LeaseClient, state: SandboxState, has_process: bool
) -> str | None:
    """Renew; return why the job has to stop, or None. Raises Refused, ServerUnavailable."""
    assert state.fence is not None
    answered = client.call(m.Renew(state.fence, state.nonce))
    start.keep_token(answered)
    order = answered.get("order")
    if order != "continue":
        if answered.get("outcome") == "complete":
            return None
        return f"the server orders it to {order}"
    phase = start.hook_state.phase()
    is_ours = not (start.job.sandbox / STATE_FILE).exists()
    if has_process and is_ours and phase and not start.hook_state.has_entered:
        client.call(m.Enter(state.fence, state.nonce, phase, is_underway=True))
        start.hook_state.write_entered()
    start.show(
        {
            "ChirpHTLeaseAttempt": state.attempt_number or 0,
            "ChirpHTLeaseState": "live",
            **({"ChirpHTLeasePhase": phase} if phase and is_ours else {}),
        }
    )
    return None
