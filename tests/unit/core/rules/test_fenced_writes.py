"""What a holder may write, and what others and a closed subjob are told: rules 6 and 7."""

from __future__ import annotations

import dataclasses

import pytest
from tests.unit.core.rules.world import World, nonce

from htlease.rules import messages as m
from htlease.rules.plan import PhaseSpec, Plan
from htlease.rules.state import CLOSED, GRANTS_KEPT, REFUSALS_KEPT, Status

# ---------------------------------------------------------------- rule 6: writes

WRITES = [
    (m.Renew, ()),
    (m.Renew, ("details",)),
    (m.Enter, ("compute",)),
    (m.Complete, ("stage-in",)),
    (m.Fail, ("stage-in", "disk full", 1)),
    (m.Exited, (0,)),
    (m.Abandon, ("evicted",)),
    (m.Commit, ()),
    (m.Settle, ("failed",)),
]


@pytest.mark.parametrize(("kind", "args"), WRITES, ids=lambda part: getattr(part, "__name__", ""))
def test_a_superseded_attempt_can_write_nothing(
    world: World, kind: type, args: tuple[object, ...]
) -> None:
    world.grant("first", 1)
    world.write("first", m.Enter, "stage-in")
    world.now += 121
    world.grant("second", 2)
    before = world.state
    assert world.refusal(world.write("first", kind, *args)) == "superseded-attempt"
    assert dataclasses.replace(world.state, refusals=before.refusals) == before


@pytest.mark.parametrize(("kind", "args"), WRITES, ids=lambda part: getattr(part, "__name__", ""))
def test_a_pair_that_never_was_granted_can_write_nothing(
    world: World, kind: type, args: tuple[object, ...]
) -> None:
    world.grant("first", 1)
    before = world.state
    for fence, name in ((1, "thief"), (2, "first"), (0, "first")):
        decision = world.send(kind(fence, nonce(name), *args))
        assert world.refusal(decision) == "stale-fence"
    assert dataclasses.replace(world.state, refusals=before.refusals) == before


def test_nothing_can_be_written_after_giving_the_lease_up(world: World) -> None:
    world.grant("first", 1)
    world.write("first", m.Abandon)
    for kind, args in ((m.Renew, ()), (m.Enter, ("stage-in",)), (m.Exited, (0,)), (m.Commit, ())):
        assert world.refusal(world.write("first", kind, *args)) == "superseded-attempt"


def test_a_fence_older_than_all_that_are_remembered_is_superseded(world: World) -> None:
    world.grant("start 1", 1)
    for start in range(2, GRANTS_KEPT + 3):
        world.write(f"start {start - 1}", m.Abandon)
        world.grant(f"start {start}", start)
    assert world.refusal(world.write("start 1", m.Renew)) == "superseded-attempt"
    assert len(world.state.grants) == GRANTS_KEPT


def test_refusals_are_recorded_once_for_each_reason_and_bounded(world: World) -> None:
    world.grant("first", 1)
    for _ in range(5):
        world.acquire("second", 2)
    refused = [event for event in world.history if isinstance(event, m.AttemptRefused)]
    assert len(refused) == 1
    for number in range(2 * REFUSALS_KEPT):
        world.acquire(f"twin {number}", 1)
    assert len(world.state.refusals) == REFUSALS_KEPT


# ---------------------------------------------------------------- rule 7: closed


def close(world: World, outcome: str) -> None:
    world.grant("first", 1)
    if outcome == "complete":
        world.run("first", "stage-in", "compute", "stage-out")
    elif outcome == "failed":
        world.write("first", m.Settle, "failed", "no input")
    else:
        world.send(m.Cancel("by request"))
    assert world.state.outcome == outcome


@pytest.mark.parametrize("outcome", [status.value for status in CLOSED])
def test_a_closed_subjob_grants_nothing_to_its_own_submission(world: World, outcome: str) -> None:
    close(world, outcome)
    decision = world.acquire("second", 2)
    assert world.refusal(decision) == "subjob-closed"
    assert isinstance(decision, m.Rejection)
    assert decision.outcome == outcome


@pytest.mark.parametrize("outcome", [status.value for status in CLOSED])
def test_a_late_renewal_of_a_closed_subjob_is_a_no_op_that_says_so(
    world: World, outcome: str
) -> None:
    close(world, outcome)
    renewal = world.write("first", m.Renew)
    assert isinstance(renewal, m.Accepted)
    assert renewal.events == ()
    assert renewal.reply == m.Renewal(0, "cancel" if outcome == "cancelled" else "stop", outcome)


def test_completing_twice_under_one_fence_succeeds_even_after_the_close(world: World) -> None:
    close(world, "complete")
    again = world.write("first", m.Complete, "stage-out")
    assert isinstance(again, m.Accepted)
    assert again.events == ()


def test_the_payloads_exit_is_recorded_after_its_last_phase_closed_the_subjob(world: World) -> None:
    close(world, "complete")
    assert isinstance(world.write("first", m.Exited, 0), m.Accepted)
    assert world.state.status is Status.COMPLETE
    assert world.state.exit_code == 0


def test_a_new_submission_reopens_what_failed_and_skips_what_was_done_once(world: World) -> None:
    world.plan = Plan((PhaseSpec("fetch", "once"), PhaseSpec("compute")))
    world.grant("first", 1)
    world.run("first", "fetch")
    world.write("first", m.Settle, "failed")
    grant = world.grant("resubmitted", 1, gjid="ap1#43.0#1")
    assert (grant.epoch, grant.fence, grant.phase) == (2, 2, "compute")


def test_who_was_started_without_a_wish_reopens_nothing(world: World) -> None:
    close(world, "failed")
    retried = m.Acquire(nonce("retried"), global_job_id="ap1#43.0#1", reopens=False)
    assert world.refusal(world.send(retried)) == "subjob-closed"
    # Whoever has the wish says so once, however often it is said.
    for _ in range(2):
        assert isinstance(world.send(m.Enroll("ap1#40.0#1")), m.Accepted)
    assert world.state.outcome is None
    world.grant("first again", 1, gjid="ap1#44.0#1")
    world.write("first again", m.Settle, "failed")
    assert isinstance(world.send(m.Enroll("ap1#40.0#1")), m.Accepted)
    assert world.state.outcome == "failed"
    assert world.refusal(world.send(retried)) == "subjob-closed"


@pytest.mark.parametrize("outcome", ["complete", "cancelled"])
def test_a_new_submission_reopens_the_rest_only_when_forced(world: World, outcome: str) -> None:
    close(world, outcome)
    assert world.refusal(world.acquire("resubmitted", 1, gjid="ap1#43.0#1")) == "subjob-closed"
    assert world.refusal(world.send(m.Enroll("ap1#43.0#1"))) == "subjob-closed"
    assert isinstance(world.send(m.Enroll("ap1#43.0#1", force=True)), m.Accepted)
    grant = world.grant("resubmitted", 1, gjid="ap1#43.0#1")
    assert (grant.fence, grant.phase) == (2, "stage-in")
    assert world.refusal(world.write("first", m.Renew)) == "superseded-attempt"


def test_a_failed_attempt_closes_nothing(world: World) -> None:
    world.grant("first", 1)
    world.write("first", m.Enter, "stage-in")
    world.write("first", m.Fail, "stage-in", "no such file", 2)
    world.write("first", m.Exited, 2)
    assert world.state.outcome is None
    assert world.grant("second", 2).phase == "stage-in"


def test_commit_closes_an_exited_subjob_only_when_its_phases_are_complete(world: World) -> None:
    world.plan = Plan.single()
    world.grant("first", 1)
    world.write("first", m.Enter, "run")
    assert world.refusal(world.write("first", m.Commit)) == "phase-order"
    world.write("first", m.Complete, "run")
    world.write("first", m.Exited, 0)
    assert world.state.status is Status.EXITED
    assert isinstance(world.write("first", m.Commit), m.Accepted)
    assert world.state.outcome == "complete"


def test_a_restart_between_exited_and_committed_is_an_ordinary_reclaim(world: World) -> None:
    world.plan = Plan.single()
    world.grant("first", 1)
    world.run("first", "run")
    world.write("first", m.Exited, 0)
    grant = world.grant("second", 2)
    assert (grant.fence, grant.phase) == (2, "run"), "its outputs never came back"
    assert world.refusal(world.write("first", m.Commit)) == "superseded-attempt"


@pytest.mark.parametrize("how", ["cancelled", "failed", "complete"])
def test_a_late_complete_of_a_closed_subjob_is_refused_with_its_outcome(
    world: World, how: str
) -> None:
    """Only what the same fence has completed before may be said again."""
    world.grant("first", 1)
    world.run("first", "stage-in")
    world.write("first", m.Enter, "compute")
    if how == "cancelled":
        world.send(m.Cancel(None))
    else:
        world.write("first", m.Settle, how)
    state = world.state
    refused = world.write("first", m.Complete, "compute")
    assert isinstance(refused, m.Rejection)
    assert (refused.code, refused.outcome) == ("subjob-closed", how)
    assert world.state.phases == state.phases and world.state.status is state.status
    assert isinstance(world.write("first", m.Complete, "stage-in"), m.Accepted)


@pytest.mark.parametrize(
    ("done", "exit_code", "is_all_back", "status"),
    [
        (("fetch", "compute"), 0, True, Status.COMPLETE),
        (("fetch", "compute"), 0, None, Status.EXITED),
        (("fetch", "compute"), 3, True, Status.EXITED),
        (("fetch",), 0, True, Status.EXITED),
    ],
)
def test_an_exit_completes_what_is_done_where_nothing_has_to_come_back(
    done: tuple[str, ...], exit_code: int, is_all_back: bool | None, status: Status
) -> None:
    world = World(plan=Plan((PhaseSpec("fetch", "redo"), PhaseSpec("compute", "resume"))))
    world.grant("first", 1)
    world.run("first", *done)
    world.write("first", m.Exited, exit_code, None, None, is_all_back)
    assert world.state.status is status
