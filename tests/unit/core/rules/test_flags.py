"""Flags hold back the entering of phases, and nothing else."""

from __future__ import annotations

import dataclasses

import pytest
from tests.unit.core.rules.world import World, nonce

from htlease.rules import messages as m
from htlease.rules.acquire import decide
from htlease.rules.attempt import Evidence
from htlease.rules.flags import RETRY_SECONDS, Flag, held_back, next_phase
from htlease.rules.plan import PhaseSpec, Plan
from htlease.rules.profiles import plan_of

PLAN = Plan((PhaseSpec("fetch", needs=("hpss", "pftp")), PhaseSpec("compute", "resume")))
DOWN = {"pftp": Flag("pftp", "upgrade"), "hpss": Flag("hpss", "tape robot")}


@pytest.fixture
def world() -> World:
    world = World(plan=PLAN)
    world.grant("first", 1)
    return world


def enter(world: World, down: dict[str, Flag], phase: str = "fetch") -> m.Decision:
    command = m.Enter(1, nonce("first"), phase)
    return held_back(decide(world.state, command, world.now), world.state, command, down, world.now)


def test_the_first_flag_that_is_down_is_named_in_the_order_of_needs(world: World) -> None:
    assert enter(world, DOWN) == m.Rejection(
        "blocked",
        "fetch needs hpss, which is down: tape robot",
        retry_after_seconds=RETRY_SECONDS,
        flag="hpss",
    )
    decision = enter(world, {"pftp": DOWN["pftp"]})
    assert isinstance(decision, m.Rejection) and decision.flag == "pftp"


def test_flags_that_a_phase_does_not_need_are_nothing_to_it(world: World) -> None:
    assert isinstance(enter(world, {"lustre": Flag("lustre")}), m.Accepted)
    world.run("first", "fetch")
    assert isinstance(enter(world, DOWN, "compute"), m.Accepted)


def test_what_has_begun_is_not_held_back(world: World) -> None:
    world.write("first", m.Enter, "fetch")
    assert isinstance(enter(world, DOWN), m.Accepted)  # the same again: its reply was lost
    for command in (m.Renew, m.Abandon):
        sent = command(1, nonce("first"))
        decision = decide(world.state, sent, world.now)
        assert held_back(decision, world.state, sent, DOWN, world.now) is decision


def test_a_phase_that_runs_already_is_recorded_as_it_is(world: World) -> None:
    command = m.Enter(1, nonce("first"), "fetch", is_underway=True)
    decision = decide(world.state, command, world.now)
    assert held_back(decision, world.state, command, DOWN, world.now) is decision


def test_who_may_not_enter_anyway_hears_that_and_not_of_flags(world: World) -> None:
    command = m.Enter(1, nonce("somebody"), "fetch")
    decision = held_back(
        decide(world.state, command, world.now), world.state, command, DOWN, world.now
    )
    assert isinstance(decision, m.Rejection) and decision.code == "stale-fence"


def start(
    world: World, number: int, down: dict[str, Flag], heeds: bool | None = True
) -> m.Decision:
    command = m.Acquire(
        f"nonce-of-start-{number:04d}", evidence=Evidence(number, number), heeds_flags=heeds
    )
    return held_back(decide(world.state, command, world.now), world.state, command, down, world.now)


def test_a_start_that_heeds_flags_gets_no_lease_while_its_first_phase_is_held_back(
    world: World,
) -> None:
    assert start(world, 2, DOWN, heeds=None) == start(world, 2, DOWN)
    world.write("first", m.Abandon)
    refused = start(world, 2, DOWN)
    assert isinstance(refused, m.Rejection)
    assert (refused.code, refused.flag) == ("blocked", "hpss")
    assert isinstance(start(world, 2, DOWN, heeds=None), m.Accepted)
    assert isinstance(start(world, 2, {"lustre": Flag("lustre")}), m.Accepted)


def test_a_start_that_has_its_lease_already_keeps_it(world: World) -> None:
    command = m.Acquire(nonce("first"), evidence=Evidence(1, 1), heeds_flags=True)
    decision = decide(world.state, command, world.now)
    assert isinstance(decision, m.Accepted), decision
    assert held_back(decision, world.state, command, DOWN, world.now) is decision


def test_the_next_phase_is_the_one_that_would_be_entered(world: World) -> None:
    assert next_phase(world.state) == "fetch"
    world.run("first", "fetch")
    assert next_phase(world.state) == "compute"
    world.write("first", m.Abandon)
    world.grant("second", 2)
    assert next_phase(world.state) == "fetch", "another attempt does it again"
    assert next_phase(dataclasses.replace(world.state, plan=plan_of("cts"))) is None
