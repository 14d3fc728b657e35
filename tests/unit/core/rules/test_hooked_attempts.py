"""What hooks need of the rules: a lease before the plan is known, an end that others report."""

from __future__ import annotations

import dataclasses

import pytest
from tests.unit.core.rules.world import GJID, STAGED, World, nonce

from htlease.rules import messages as m
from htlease.rules.plan import ON_WALL_TIME, PhaseSpec, Plan
from htlease.rules.state import Status


@pytest.fixture
def hooked() -> World:
    """A lease that a hook acquired, which knows no plan."""
    world = World()
    acquired = world.send(m.Acquire(nonce("first"), global_job_id=GJID))
    assert isinstance(acquired, m.Accepted)
    world.fences["first"] = 1
    return world


def wrapper_acquires(world: World, plan: Plan = STAGED) -> m.Decision:
    return world.send(m.Acquire(nonce("first"), global_job_id=GJID, plan=plan))


def test_the_wrapper_brings_its_plan_under_the_lease_of_the_hook(hooked: World) -> None:
    hooked.now += 60
    decision = wrapper_acquires(hooked)
    assert isinstance(decision, m.Accepted) and isinstance(decision.reply, m.Grant)
    assert (decision.reply.fence, decision.reply.phase) == (1, "stage-in")
    assert decision.reply.expires_in_seconds == 120
    assert [type(event) for event in decision.events] == [m.PlanChanged]
    hooked.run("first", "stage-in", "compute", "stage-out")
    assert hooked.state.status is Status.COMPLETE


def test_the_lease_lasts_as_the_wrapper_says_and_not_as_the_hook_did(hooked: World) -> None:
    asked = m.Acquire(nonce("first"), global_job_id=GJID, plan=STAGED, ttl_seconds=30)
    for expected in (m.PlanChanged, m.LeaseRenewed):
        hooked.now += 10
        decision = hooked.send(asked)
        assert isinstance(decision, m.Accepted) and isinstance(decision.reply, m.Grant)
        assert decision.reply.expires_in_seconds == 30
        assert [type(event) for event in decision.events] == [expected]
    hooked.now += 31
    assert not hooked.state.is_live(hooked.now)


def test_a_plan_cannot_change_once_a_phase_was_entered(hooked: World) -> None:
    hooked.write("first", m.Enter, "run")
    decision = wrapper_acquires(hooked)
    assert isinstance(decision, m.Accepted) and isinstance(decision.reply, m.Grant)
    assert [phase.name for phase in decision.reply.phases] == ["run"]


def test_the_same_plan_again_is_a_renewal(hooked: World) -> None:
    wrapper_acquires(hooked)
    decision = wrapper_acquires(hooked)
    assert isinstance(decision, m.Accepted)
    assert [type(event) for event in decision.events] == [m.LeaseRenewed]


def test_a_new_plan_does_not_prolong_a_recalled_lease(hooked: World) -> None:
    hooked.write("first", m.Abandon)
    hooked.grant("second", 2, plan=Plan.single())
    hooked.acquire("third", 3)
    deadline_at = hooked.state.deadline_at
    hooked.now += 60
    decision = hooked.acquire("second", 2, plan=STAGED)
    assert isinstance(decision, m.Accepted)
    assert hooked.state.plan == STAGED
    assert (hooked.state.status, hooked.state.deadline_at) == (Status.RECALLED, deadline_at)


def test_a_later_attempt_goes_on_by_the_plan_that_the_wrapper_brought(hooked: World) -> None:
    wrapper_acquires(hooked)
    hooked.run("first", "stage-in")
    hooked.now += 120
    second = m.Acquire(nonce("second"), global_job_id=GJID)
    decision = hooked.send(second)
    assert isinstance(decision, m.Accepted) and isinstance(decision.reply, m.Grant)
    assert [phase.name for phase in decision.reply.phases] == ["stage-in", "compute", "stage-out"]


# ---------------------------------------------------------------- further IDs of a submission


@pytest.mark.parametrize("outcome", ["complete", "failed", "cancelled"])
def test_a_further_id_of_a_known_submission_reopens_nothing(outcome: str) -> None:
    world = World()
    world.grant("first", 1)
    world.write("first", m.Settle, outcome)
    decision = world.send(m.Enroll(GJID, links={"batch": "slurm/77"}))
    assert isinstance(decision, m.Accepted)
    assert world.state.outcome == outcome
    event = world.history[-1]
    assert isinstance(event, m.SubmissionEnrolled)
    assert event.links == {"batch": "slurm/77"} and event.reopened is None


# ---------------------------------------------------------------- an end seen from outside


def test_a_reported_end_frees_the_lease_with_how_it_ended() -> None:
    world = World()
    world.grant("first", 1)
    decision = world.send(m.Ended(GJID, 1, 1, exit_code=3, reason="terminate event"))
    assert isinstance(decision, m.Accepted)
    assert (world.state.status, world.state.exit_code) == (Status.EXITED, 3)
    acquired = world.grant("second", 2)
    assert acquired.fence == 2
    assert isinstance(world.history[-1], m.LeaseAcquired)
    assert world.history[-1].why == "exited"


@pytest.mark.parametrize(
    ("why_not", "command"),
    [
        ("an earlier start", m.Ended(GJID, 1, 1)),
        ("a later start", m.Ended(GJID, 3, 3)),
        ("another shadow under the same count", m.Ended(GJID, 2, 1)),
        ("no start in particular", m.Ended(GJID)),
        ("another submission", m.Ended("ap1#99.0#1795225431", 2, 2)),
    ],
)
def test_the_end_of_something_else_leaves_the_holder_alone(why_not: str, command: m.Ended) -> None:
    world = World()
    world.grant("second", 2)
    decision = world.send(command)
    assert isinstance(decision, m.Accepted), why_not
    assert decision.events == ()
    assert isinstance(world.write("second", m.Renew), m.Accepted)


def test_a_script_or_an_operator_is_not_ended_by_its_jobs_end() -> None:
    world = World()
    world.grant("post", 1, kind="post")
    world.send(m.Ended(GJID, 1, 1))
    assert world.state.status is Status.ACTIVE


def test_a_late_report_neither_reopens_nor_changes_what_was_closed() -> None:
    world = World()
    world.grant("first", 1)
    world.run("first", "stage-in", "compute", "stage-out")
    before = world.state
    decision = world.send(m.Ended(GJID, 1, 1, exit_code=1))
    assert isinstance(decision, m.Accepted)
    assert decision.reply == m.SubjobReply("complete", 1, "complete")
    assert world.state == before


def test_late_writes_after_a_reported_end_are_refused() -> None:
    world = World(plan=dataclasses.replace(STAGED, phases=(PhaseSpec("run"),)))
    world.grant("first", 1)
    world.write("first", m.Enter, "run")
    world.send(m.Ended(GJID, 1, 1))
    assert world.refusal(world.write("first", m.Renew)) == "superseded-attempt"
    assert world.refusal(world.write("first", m.Complete, "run")) == "superseded-attempt"


def test_the_same_report_again_says_the_same() -> None:
    world = World()
    world.grant("first", 1)
    first = world.send(m.Ended(GJID, 1, 1, exit_code=0))
    again = world.send(m.Ended(GJID, 1, 1, exit_code=0))
    assert isinstance(first, m.Accepted) and isinstance(again, m.Accepted)
    assert again.reply == first.reply
    assert again.events == ()


WALL_TIME = "walltime: The job exceeded allowed execute duration of 00:06"


def test_a_limit_on_run_time_explains_an_end_of_which_the_job_knew_a_signal_only() -> None:
    world = World()
    world.grant("first", 1)
    world.write("first", m.Abandon, "asked to end by SIGTERM")
    world.send(m.Ended(GJID, 1, 1, reason=WALL_TIME))
    world.send(m.Ended(GJID, 1, 1, reason=WALL_TIME))
    ends = [event for event in world.history if isinstance(event, m.AttemptExited)]
    assert [(event.fence, event.reason) for event in ends] == [(1, WALL_TIME)]
    assert world.state.status is Status.ABANDONED
    world.grant("second", 2)


def test_an_abandoned_lease_stays_as_it_is_whatever_else_is_reported() -> None:
    world = World()
    world.grant("first", 1)
    world.write("first", m.Abandon, "asked to end by SIGTERM")
    before = world.state
    world.send(m.Ended(GJID, 1, 1, reason="terminate event"))
    world.send(m.Ended(GJID, 2, 2, reason=WALL_TIME))
    assert world.state == before


@pytest.mark.parametrize("policy", ON_WALL_TIME)
@pytest.mark.parametrize("says", ["the wrapper", "the access point", "the access point, late"])
def test_what_a_limit_on_run_time_comes_to_is_the_plans_business(policy: str, says: str) -> None:
    world = World(plan=dataclasses.replace(STAGED, on_wall_time=policy))
    world.grant("first", 1)
    if says == "the wrapper":
        world.write("first", m.Exited, None, 15, WALL_TIME)
    elif says == "the access point":
        world.send(m.Ended(GJID, 1, 1, reason=WALL_TIME))
    else:
        world.write("first", m.Abandon, "asked to end by SIGTERM")
        world.send(m.Ended(GJID, 1, 1, reason=WALL_TIME))
    assert world.state.outcome == ("failed" if policy == "fail" else None)
    if policy != "fail":
        world.grant("second", 2)


def test_any_other_end_closes_nothing_under_any_policy() -> None:
    world = World(plan=dataclasses.replace(STAGED, on_wall_time="fail"))
    world.grant("first", 1)
    world.write("first", m.Exited, 1, None, "payload ended with exit code 1")
    assert world.state.outcome is None
