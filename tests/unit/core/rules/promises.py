"""What has to hold in every state that a subjob can be in, by the rules alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.unit.core.rules.small_worlds import NOW, Setting
from tests.unit.core.rules.world import GJID, nonce

from htlease.rules import messages as m
from htlease.rules.attempt import Evidence, Place
from htlease.rules.state import Status, SubjobState, apply

Decide = Callable[[SubjobState, m.Command, float], m.Decision]


class Broken(AssertionError):
    """A property does not hold; the text is the way there."""


def check_state(setting: Setting, rules: Decide, state: SubjobState) -> None:
    """Raise Broken unless a state of a small world keeps every promise."""
    _check_writers(setting, rules, state)
    _check_onlookers(setting, rules, state)
    _check_can_finish(setting, rules, state)


def _check_writers(setting: Setting, rules: Decide, state: SubjobState) -> None:
    """One holder at a time can write, and the last one."""
    writers = [
        fence
        for fence in range(1, state.fence + 1)
        for index in range(setting.attempts)
        if isinstance(
            rules(state, m.Renew(fence, nonce(f"attempt {index}"), "x"), NOW),
            m.Accepted,
        )
    ]
    if len(writers) > 1 or (writers and writers != [state.fence]):
        raise Broken(f"{setting.name}: fences {writers} can all write in {state}")


def _check_onlookers(setting: Setting, rules: Decide, state: SubjobState) -> None:
    """What is reported of a job in the queue gives and takes no lease."""
    for what in m.OBSERVATIONS:
        for job in (GJID, "ap1#99.0#1795225431"):
            after = state
            for _ in range(2):
                decision = rules(after, m.Observed(job, what), NOW)
                after = apply(after, decision.events, NOW)
            seen = replace(
                after,
                job_hold=state.job_hold,
                removed_jobs=state.removed_jobs,
                ended_job=state.ended_job,
            )
            if seen != state:
                raise Broken(f"{setting.name}: {what} changed {state} to {seen}")


def _check_can_finish(setting: Setting, rules: Decide, state: SubjobState) -> None:
    """From any state a later start, left alone, brings the subjob to its end."""
    if state.status is Status.COMPLETE:
        return
    now = max(NOW, state.deadline_at) + 1
    secret = nonce("the last attempt")
    evidence = Evidence(9, 9, None, 1) if setting.is_ordered else Evidence()
    acquire = m.Acquire(secret, "job", evidence, Place(), GJID, plan=setting.plan)
    decision = rules(state, acquire, now)
    if not isinstance(decision, m.Accepted) or not isinstance(decision.reply, m.Grant):
        if isinstance(decision, m.Rejection) and decision.outcome == "complete":
            return
        raise Broken(f"{setting.name}: a later start is stuck: {decision} in {state}")
    state = apply(state, decision.events, now)
    fence = decision.reply.fence
    commands: list[m.Command] = []
    for phase in decision.reply.phases:
        if phase.run:
            commands += [m.Enter(fence, secret, phase.name)]
            commands += [m.Complete(fence, secret, phase.name)]
    commands += [m.Exited(fence, secret, 0), m.Commit(fence, secret)]
    for command in commands:
        decision = rules(state, command, now)
        if not isinstance(decision, m.Accepted):
            raise Broken(f"{setting.name}: {command} refused: {decision} in {state}")
        state = apply(state, decision.events, now)
    if state.status is not Status.COMPLETE:
        raise Broken(f"{setting.name}: did not complete: {state}")
