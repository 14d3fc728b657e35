"""Flags: switches for what a phase needs, e.g. a mass storage; decided before a phase is entered.

Whoever looks after such a system lowers its flag, and no phase that needs it is entered anywhere
until the flag is raised. Of a job that begins its phase before anybody is asked, the start is held
back. A flag that nobody ever lowered is up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from htlease.rules import messages as m
from htlease.rules.plan import Plan, phases_left
from htlease.rules.state import SubjobState, apply

#: When somebody who waits for a flag should ask again.
RETRY_SECONDS = 15.0
#: Between a flag's name and the group of workflows that alone it is for.
GROUP_SEPARATOR = "@"


@dataclass(frozen=True)
class Flag:
    """A flag that is down."""

    name: str
    reason: str | None = None


def flag_against(plan: Plan | None, phase: str, down: Mapping[str, Flag]) -> Flag | None:
    """Return the first flag that is down of those that a phase needs, in the plan's order."""
    spec = plan.phase(phase) if plan and down else None
    return next((down[name] for name in spec.needs if name in down), None) if spec else None


def next_phase(state: SubjobState) -> str | None:
    """Return the phase that would be entered next; None where a payload decides that itself."""
    if state.plan is None or state.plan.profile is not None:
        return None
    fence = state.fence if state.current_fence == state.fence else None
    return next(iter(phases_left(state.plan, state.phases, fence)), None)


def held_back(
    decision: m.Decision,
    state: SubjobState,
    command: m.Command,
    down: Mapping[str, Flag],
    now: float,
) -> m.Decision:
    """Return the decision on a command, or its refusal while a flag that it needs is down.

    Only the entering of a phase that has not begun is held back, and the lease that would begin
    one; nothing is recorded of that, and a lease stays with its holder.
    """
    if not down or not isinstance(decision, m.Accepted) or not decision.events:
        return decision
    plan, phase = state.plan, None
    if isinstance(command, m.Enter) and not command.is_underway:
        phase = command.phase
    elif isinstance(command, m.Acquire) and command.heeds_flags:
        after = apply(state, decision.events, now)
        if after.fence > state.fence:
            plan, phase = after.plan, next_phase(after)
    flag = None if phase is None else flag_against(plan, phase, down)
    return decision if flag is None or phase is None else blocked(flag, phase)


def blocked(flag: Flag, phase: str) -> m.Rejection:
    """Return the refusal of a phase that a flag holds back."""
    why = f": {flag.reason}" if flag.reason else ""
    return m.Rejection(
        "blocked",
        f"{phase} needs {flag.name}, which is down{why}",
        retry_after_seconds=RETRY_SECONDS,
        flag=flag.name,
    )
