"""What is reported of a job in the queue: told by the history, and nobody's lease changes."""

from __future__ import annotations

import pytest
from tests.unit.core.rules.world import GJID, World, nonce

from htlease.condor.hold_codes import OUR_SUBCODE, held_by
from htlease.errors import InvalidField
from htlease.rules import messages as m
from htlease.rules.state import REMOVALS_KEPT

HELD = m.Observed(GJID, "held", "user", "disk full", 1, 0)
OTHER = "ap1#77.0#1795225999"


@pytest.fixture
def world() -> World:
    """A subjob whose first attempt has the lease."""
    world = World()
    world.grant("first", 1)
    return world


def told(decision: m.Decision) -> list[m.Event]:
    assert isinstance(decision, m.Accepted)
    return list(decision.events)


def test_a_hold_is_told_once_and_again_only_if_it_is_another(world: World) -> None:
    assert told(world.send(HELD)) == [m.JobHeld(GJID, "user", "disk full", 1, 0)]
    assert told(world.send(HELD)) == []
    other = m.Observed(GJID, "held", "htlease", "maintenance", 1, OUR_SUBCODE)
    assert told(world.send(other)) == [m.JobHeld(GJID, "htlease", "maintenance", 1, OUR_SUBCODE)]


def test_a_hold_leaves_the_lease_with_its_holder(world: World) -> None:
    world.send(HELD)
    world.run("first", "stage-in")
    assert world.state.job_hold is not None


def test_a_release_ends_the_hold_of_its_own_job_only(world: World) -> None:
    assert told(world.send(m.Observed(GJID, "released"))) == []  # nothing was held
    world.send(HELD)
    assert told(world.send(m.Observed(OTHER, "released"))) == []
    assert told(world.send(m.Observed(GJID, "released", "user"))) == [m.JobReleased(GJID, "user")]
    assert world.state.job_hold is None


def test_a_start_ends_the_hold_that_nobody_said_was_over(world: World) -> None:
    world.send(HELD)
    world.write("first", m.Abandon)
    world.send(m.Acquire(nonce("post"), "post", global_job_id=GJID))
    assert world.state.job_hold is not None, "a script is no start of the job"
    world.now += 1000
    world.grant("second", 2)
    assert world.state.job_hold is None


def test_a_new_submission_ends_the_hold_and_an_old_one_is_not_held_any_more(world: World) -> None:
    world.send(HELD)
    world.send(m.Enroll("dag#1/0"))
    assert world.state.job_hold is None
    assert told(world.send(HELD)) == []


def test_a_removal_is_told_once_for_each_job_and_ends_its_hold(world: World) -> None:
    world.send(HELD)
    removed = m.Observed(GJID, "removed", "user", "via condor_rm (by user ann)")
    assert told(world.send(removed)) == [m.JobRemoved(GJID, "user", "via condor_rm (by user ann)")]
    assert world.state.job_hold is None
    assert told(world.send(removed)) == []
    for number in range(REMOVALS_KEPT + 1):
        assert told(world.send(m.Observed(f"ap1#{number}.0#1", "removed")))
    assert len(world.state.removed_jobs) == REMOVALS_KEPT


def test_a_closed_subjob_takes_what_comes_late(world: World) -> None:
    world.run("first", "stage-in", "compute", "stage-out")
    assert told(world.send(HELD)) != []
    assert world.state.outcome == "complete"


def test_what_cannot_be_observed_is_refused_by_name() -> None:
    with pytest.raises(InvalidField, match="'stopped' is not one of held, released, removed"):
        m.Observed(GJID, "stopped")


@pytest.mark.parametrize(
    ("code", "subcode", "who"),
    [
        (1, 0, "user"),
        (1, OUR_SUBCODE, "htlease"),
        (15, 0, "user"),
        (3, OUR_SUBCODE, "job-policy"),
        (26, 0, "site-policy"),
        (12, 2, "htcondor"),
        (None, None, "htcondor"),
    ],
)
def test_the_codes_say_whose_hold_it_is(code: int | None, subcode: int | None, who: str) -> None:
    assert held_by(code, subcode) == who
