"""Running untracked while the server is away from the start on, until a lease can be had after all.

Only for plans of which nothing can do harm by running beside another attempt. The payload's phases
begin as if nothing had been done before, updates are kept, and the lease is asked for on and on.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace

from htlease.execution.sandbox_state import SandboxState
from htlease.rules import messages as m
from htlease.rules.attempt import AttemptId
from htlease.wire.lease_client import Lease
from htlease_wrapper.settings import Settings

#: Of a lease that is still to come; the server counts from 1.
NO_FENCE = 0
_POLL_SECONDS = 0.2


def may_run_untracked(settings: Settings) -> bool:
    """Tell whether a job may begin its work before it has a lease."""
    is_harmless = not any(spec.exclusive or spec.restart == "once" for spec in settings.plan.phases)
    return settings.may_run_untracked and bool(settings.commands) and is_harmless


def lease_to_come(command: m.Acquire) -> Lease:
    """Return what stands in for a lease while there is none: every phase has to run."""
    assert command.plan is not None
    phases = tuple(
        m.PhaseToRun(spec.name, spec.restart, spec.exclusive, spec.needs, True, False, 0)
        for spec in command.plan.phases
    )
    grant = m.Grant(
        fence=NO_FENCE,
        epoch=0,
        attempt_id=str(AttemptId.of(command.global_job_id or "unknown", command.evidence)),
        attempt_number=command.evidence.job_starts or 1,
        expires_in_seconds=0.0,
        phase=phases[0].name,
        phases=phases,
        reclaimed=False,
        details=None,
        details_phase=None,
    )
    return Lease(grant, command.nonce, command.ttl_seconds, math.inf)


def output_prefix(grant: m.Grant) -> str:
    """Return a name that no other attempt uses."""
    if grant.fence == NO_FENCE:
        return f"attempt-{grant.attempt_number}-untracked-{os.urandom(6).hex()}"
    return f"attempt-{grant.attempt_number}-fence-{grant.fence}"


def under(lease: Lease, command: m.Command) -> m.Command:
    """Return a command as it goes out under a lease, which may have come after it was meant."""
    if isinstance(command, m.FencedCommand) and command.fence != lease.fence:
        changed: m.Command = replace(command, fence=lease.fence)
        return changed
    return command


def wait_for_fence(
    read: Callable[[], SandboxState | None], wait_seconds: float
) -> SandboxState | None:
    """Return the state of a wrapper once it has its lease, or as it is when the time is over."""
    until = time.monotonic() + wait_seconds
    while True:
        state = read()
        is_to_come = state is not None and state.fence is None and state.is_in_use
        if not is_to_come or time.monotonic() >= until:
            return state
        time.sleep(_POLL_SECONDS)
