"""A wrapper inside the payload of another one, for the same subjob: two of them, one lease.

Without a plan the inner one has nothing to add and becomes its command. With a plan it takes the
subjob over from a wrapper that has none (`USER_JOB_WRAPPER`): it gives the outer lease up, having
marked the outer one's folder, and acquires its own; the outer one then looks after the payload
and says no more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from htlease.condor.private_files import read_own, replace_own
from htlease.errors import BadConfig, Refused
from htlease.execution.processes import ancestors, start_ticks
from htlease.execution.sandbox_state import FOLDER, SandboxState, StartId, is_held, read_state
from htlease.rules import messages as m
from htlease.rules.plan import Plan
from htlease.wire.lease_client import LeaseClient

_MARK = "handed-over"
_DONE = "done"
_MARK_MAX_BYTES = 100
#: The phases of a wrapper that was given no plan.
_NO_PLAN = [phase.name for phase in Plan.single().phases]


@dataclass(frozen=True)
class Outer:
    """A living wrapper around this process, and the lease that it acquired."""

    home: Path
    state: SandboxState


def outer_of(environ: Mapping[str, str], sandbox: Path, key: str, start: StartId) -> Outer | None:
    """Return the wrapper around this process that has a lease for the same subjob, if any."""
    named = environ.get("HTLEASE_SANDBOX")
    for home in ([Path(named)] if named else []) + [sandbox]:
        state = read_state(home)
        if state is None or state.key != key or state.fence is None:
            continue
        if state.is_in_use:
            if state.pid in ancestors():
                return Outer(home, state)
        elif state.start.is_start_of(start) and is_held(home):
            return Outer(home, state)  # outside the PID namespace of this container
    return None


def take_over(outer: Outer, client: LeaseClient, wait_server_seconds: float) -> None:
    """Make the outer wrapper's lease end without its payload; raises ServerUnavailable, BadConfig.

    An outer wrapper that has lost its lease is left to find out.
    """
    mark = outer.home / FOLDER / _MARK
    if _reads(mark) == _DONE:
        return  # an earlier wrapper in this payload did it
    lease = outer.state
    assert lease.fence is not None
    try:
        document = client.call(
            m.Acquire(nonce=lease.nonce), give_up_after_seconds=wait_server_seconds
        )
        if [phase["name"] for phase in document["phases"]] != _NO_PLAN:
            raise BadConfig(
                f"the wrapper around this one walks a plan for {lease.key} already; leave --plan "
                "out here, or name a subjob of its own with --key WORKFLOW/SUBJOB"
            )
        replace_own(mark, f"{os.getpid()} {start_ticks(os.getpid())}".encode())
        abandon = m.Abandon(lease.fence, lease.nonce, "a wrapper within the payload has a plan")
        client.call(abandon, give_up_after_seconds=wait_server_seconds)
        replace_own(mark, _DONE.encode())
    except Refused:
        mark.unlink(missing_ok=True)
    except Exception:
        mark.unlink(missing_ok=True)
        raise


def is_handed_over(home: Path) -> bool:
    """Tell whether a wrapper within the payload has taken the subjob over, or just does."""
    text = _reads(home / FOLDER / _MARK)
    pid, _, ticks = text.partition(" ")
    return text == _DONE or (pid.isdigit() and str(start_ticks(int(pid))) == ticks)


def _reads(path: Path) -> str:
    try:
        return read_own(path, _MARK_MAX_BYTES).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
