"""What a workflow is said to be doing, and where a script leaves a subjob that it looked after."""

from __future__ import annotations

import pytest
from tests.unit.core.rules.world import World

from htlease.rules import messages as m
from htlease.rules.rollup import rollup
from htlease.rules.state import Status


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        ({}, "empty"),
        ({"waiting": 2}, "waiting"),
        ({"waiting": 2, "complete": 1}, "waiting"),
        ({"abandoned": 1, "complete": 1}, "interrupted"),
        ({"exited": 1, "waiting": 1}, "committing"),
        ({"complete": 3}, "complete"),
        ({"cancelled": 3}, "cancelled"),
        ({"complete": 2, "cancelled": 1}, "partial"),
        ({"complete": 2, "cancelled": 1, "failed": 1}, "failed"),
        ({"complete": 2, "cancelled": 1, "active": 1}, "running"),
        ({"complete": 0, "cancelled": 1}, "cancelled"),
    ],
)
def test_a_workflow_is_what_its_subjobs_are(counts: dict[str, int], state: str) -> None:
    assert rollup(counts) == state


def _look(world: World, kind: str) -> None:
    world.grant(kind, 1, kind=kind)
    assert isinstance(world.write(kind, m.Abandon, "done"), m.Accepted)


@pytest.mark.parametrize("kind", ["pre", "post", "operator"])
def test_a_script_that_looked_in_interrupts_nothing(world: World, kind: str) -> None:
    _look(world, kind)
    assert world.state.status is Status.WAITING


def test_a_pre_script_leaves_a_job_to_come(world: World) -> None:
    world.grant("first", 1)
    world.write("first", m.Abandon, "evicted")
    assert world.state.status.value == "abandoned"
    _look(world, "pre")
    assert world.state.status.value == "waiting"


def test_a_post_script_leaves_what_has_ended_to_be_settled(world: World) -> None:
    world.grant("first", 1)
    world.write("first", m.Exited, 0)
    _look(world, "post")
    assert world.state.status is Status.EXITED
    # It has let go of it: neither it nor the job before writes any more.
    for name in ("post", "first"):
        settled = world.write(name, m.Settle, "complete")
        assert world.refusal(settled) == "superseded-attempt"


def test_a_post_script_leaves_what_was_interrupted_so(world: World) -> None:
    world.grant("first", 1)
    world.write("first", m.Abandon, "evicted")
    _look(world, "post")
    assert world.state.status is Status.ABANDONED


def test_who_held_a_subjob_before_it_was_opened_again_closes_it_no_more(world: World) -> None:
    world.grant("first", 1)
    world.write("first", m.Settle, "failed")
    assert isinstance(world.send(m.Enroll("ap1#43.0#1")), m.Accepted)
    assert world.refusal(world.write("first", m.Settle, "complete")) == "superseded-attempt"
