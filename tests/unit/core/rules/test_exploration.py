"""Every reachable state of small worlds keeps the promises; broken rules are found out."""

from __future__ import annotations

import dataclasses

import pytest
from tests.unit.core.rules.exploration import Explorer
from tests.unit.core.rules.promises import Broken, Decide
from tests.unit.core.rules.small_worlds import SETTINGS, Setting

from htlease.rules import messages as m
from htlease.rules.acquire import decide
from htlease.rules.state import SubjobState


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_no_state_that_two_attempts_can_reach_breaks_a_promise(setting: Setting) -> None:
    assert Explorer(dataclasses.replace(setting, attempts=2)).run() > 3_000


@pytest.mark.slow
@pytest.mark.timeout(3600)  # some hundred thousand states each
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_no_state_that_three_attempts_can_reach_breaks_a_promise(setting: Setting) -> None:
    assert Explorer(setting).run() > 10_000


def ignores_the_fence(state: SubjobState, command: m.Command, now: float) -> m.Decision:
    if isinstance(command, m.FencedCommand) and state.holder and command.fence < state.fence:
        command = dataclasses.replace(command, fence=state.fence)
        state = dataclasses.replace(
            state,
            holder=dataclasses.replace(state.holder, nonce_digest=m.nonce_digest(command.nonce)),
        )
    return decide(state, command, now)


def grants_while_live(state: SubjobState, command: m.Command, now: float) -> m.Decision:
    if isinstance(command, m.Acquire):
        state = dataclasses.replace(state, deadline_at=min(state.deadline_at, now))
    return decide(state, command, now)


def lets_older_attempts_in(state: SubjobState, command: m.Command, now: float) -> m.Decision:
    if isinstance(command, m.Acquire):
        state = dataclasses.replace(state, last_evidence={})
    return decide(state, command, now)


def never_lets_go(state: SubjobState, command: m.Command, now: float) -> m.Decision:
    if isinstance(command, m.Acquire) and state.holder:
        state = dataclasses.replace(state, deadline_at=now + 1)
    return decide(state, command, now)


def ends_the_lease_of_a_removed_job(
    state: SubjobState, command: m.Command, now: float
) -> m.Decision:
    decision = decide(state, command, now)
    if isinstance(command, m.Observed) and command.what == "removed" and state.is_live(now):
        return m.Accepted((m.LeaseAbandoned(state.fence),), m.SubjobReply("abandoned", 1, None))
    return decision


@pytest.mark.parametrize(
    "rules",
    [
        ignores_the_fence,
        grants_while_live,
        lets_older_attempts_in,
        never_lets_go,
        ends_the_lease_of_a_removed_job,
    ],
)
def test_the_explorer_finds_a_rule_that_is_broken_on_purpose(rules: Decide) -> None:
    with pytest.raises(Broken):
        Explorer(dataclasses.replace(SETTINGS[0], attempts=2), rules).run()
