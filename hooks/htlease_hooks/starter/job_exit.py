"""JOB_EXIT: records how a job ended, where this hook runs; nothing depends on it.

It is not called when the starter is killed. From HTCondor 25.4 on it must not be configured with
file transfer: the starter leaves in the middle of the transfer and the job runs again for ever.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from htlease.condor.job_ad import Ad
from htlease.errors import Refused
from htlease.execution.job import sandbox_of
from htlease.execution.process_start import at_start
from htlease.execution.sandbox_state import SandboxState, remove_state
from htlease.rules import messages as m
from htlease_hooks.hook_reply import say
from htlease_hooks.starter.context import StartContext
from htlease_hooks.starter.hook_state import HookState
from htlease_hooks.timeout import within

_OWN_SECONDS = 2.0
#: HTCondor kills the hook after 30 s unless told otherwise.
_CHAIN_SECONDS = 15.0


@dataclass(frozen=True)
class JobEnd:
    """How a job ended."""

    exit_code: int | None = None
    exit_signal: int | None = None
    #: It was made to end (evicted, held, removed), so it will have to be started again.
    is_evicted: bool = False


#: Set in docker and container universe.
_IN_IMAGES = ("wantdocker", "wantcontainer")


def how_it_ended(arguments: Sequence[str], ad: Ad, environ: Mapping[str, str]) -> JobEnd:
    """Return how the job of this start ended; pure.

    An `ExitCode` in the ad may be that of an earlier start. What is new is
    `_CONDOR_MAINJOB_EXIT_CODE`, which is not there when a signal ended the job, nor in docker
    universe; there an ad that says how the job has ended is of this start. The
    argument is `exit`, or `evict` for evictions, holds and removals alike. Source: measured on
    23.9.6 and 25.14.1; docker universe on 23.9.6.
    """
    is_evicted = arguments[:1] != ["exit"]
    code = environ.get("_CONDOR_MAINJOB_EXIT_CODE", "")
    if code.isdigit():
        return JobEnd(exit_code=int(code), is_evicted=is_evicted)
    is_new = ad.text("JobState") == "Exited" and ad.attributes.get("exitbysignal") is False
    if is_new and any(ad.attributes.get(name) is True for name in _IN_IMAGES):
        return JobEnd(exit_code=ad.count("ExitCode"), is_evicted=is_evicted)
    return JobEnd(exit_signal=ad.count("ExitSignal"), is_evicted=is_evicted)


def main(name: str, arguments: Sequence[str]) -> int:
    """Record the end; always returns 0, which HTCondor does not look at."""
    ad_text = sys.stdin.buffer.read().decode("utf-8", errors="surrogateescape")
    environ = at_start().environ()
    site = HookState(sandbox_of(environ)).site()
    if site is None:
        return 0
    try:
        start = StartContext(ad_text, environ, site)
        state = start.state()
        is_ours = state is not None and state.fence is not None and not state.is_in_use
        if state is not None and is_ours and start.is_readable and not start.is_left_alone:
            end = how_it_ended(arguments, start.ad, environ)
            within(site.wait_server + _OWN_SECONDS, lambda: _record(start, state, end))
    except Exception as error:  # the access point finds out how the job ended, or the lease lapses
        say(f"job {start.job.global_job_id}: its end is not recorded: {error!r}")
    if site.chain_exit:
        from htlease_hooks.site_hook import run_site_hook

        run_site_hook(site.chain_exit, arguments, ad_text, _CHAIN_SECONDS)
    return 0


def _record(start: StartContext, state: SandboxState, end: JobEnd) -> None:
    assert state.fence is not None
    client = start.connect(state)
    pair = (state.fence, state.nonce)
    remove_state(start.hook_state.folder, state.nonce)  # an UPDATE_JOB_INFO may still come
    stopped = start.hook_state.stopped()
    if end.is_evicted or stopped is not None:
        why = stopped or "the job was made to end: evicted, held or removed"
        client.call(m.Abandon(*pair, why))
        return
    phase = start.hook_state.phase()
    try:
        if phase is not None:
            client.call(m.Enter(*pair, phase, is_underway=True))
            if end.exit_code == 0:
                client.call(m.Complete(*pair, phase))
            else:
                client.call(m.Fail(*pair, phase, "the job failed", end.exit_code))
    except Refused as refused:
        say(f"{state.key}: {phase} is not recorded: {refused}")
    client.call(m.Exited(*pair, end.exit_code, end.exit_signal))
