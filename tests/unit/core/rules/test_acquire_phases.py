"""Phases and state machines under a lease."""

from tests.unit.core.rules.world import World

from htlease.rules import messages as m
from htlease.rules.plan import PhaseSpec, Plan
from htlease.rules.profiles import plan_of

# ---------------------------------------------------------------- phases


def test_phases_are_entered_in_order(world: World) -> None:
    world.grant("first", 1)
    decision = world.write("first", m.Enter, "compute")
    assert world.refusal(decision) == "phase-order"
    assert isinstance(decision, m.Rejection)
    assert "stage-in comes first" in decision.detail
    assert world.refusal(world.write("first", m.Complete, "stage-in")) == "phase-order"
    assert world.refusal(world.write("first", m.Enter, "no-such-phase")) == "phase-order"


def test_entering_twice_is_one_entry_and_entering_after_a_failure_another(world: World) -> None:
    world.grant("first", 1)
    world.write("first", m.Enter, "stage-in")
    world.write("first", m.Enter, "stage-in")
    assert world.state.phases["stage-in"].entries == 1
    world.write("first", m.Fail, "stage-in", "try again")
    world.write("first", m.Enter, "stage-in")
    assert world.state.phases["stage-in"].entries == 2
    assert world.state.phases["stage-in"].failed_fence is None


def test_a_restart_redoes_what_was_local_and_resumes_with_the_saved_details(world: World) -> None:
    world.grant("first", 1)
    world.run("first", "stage-in")
    world.write("first", m.Enter, "compute")
    world.write("first", m.Renew, "step 41 of 100")
    world.now += 121
    grant = world.grant("second", 2)
    assert grant.phase == "stage-in", "its files were in a sandbox that is gone"
    assert (grant.details, grant.details_phase) == ("step 41 of 100", "compute")
    world.run("second", "stage-in")
    entered = world.write("second", m.Enter, "compute")
    assert isinstance(entered, m.Accepted)
    assert isinstance(entered.reply, m.PhaseRecord)
    assert entered.reply.details == "step 41 of 100"


def test_a_plan_whose_phases_are_all_done_once_closes_instead_of_running(world: World) -> None:
    world.plan = Plan((PhaseSpec("fetch", "once"), PhaseSpec("compute")))
    world.grant("first", 1)
    world.run("first", "fetch")
    world.write("first", m.Abandon)
    decision = world.acquire("second", 2, plan=Plan((PhaseSpec("fetch", "once"),)))
    assert isinstance(decision, m.Rejection)
    assert (decision.code, decision.outcome) == ("subjob-closed", "complete")
    assert world.state.outcome == "complete"


# ---------------------------------------------------------------- profiles


def test_cts_executor_restarted_after_job_submitting_goes_on(world: World) -> None:
    """The upstream service refuses the second start's `job_submitting`; that is why we are here."""
    world.plan = plan_of("cts:kbase_htcondor_subjob")
    world.grant("first", 1)
    assert isinstance(world.write("first", m.Enter, "job_submitting"), m.Accepted)
    assert isinstance(world.write("first", m.Enter, "job_submitted"), m.Accepted)
    world.write("first", m.Abandon, "evicted")
    world.grant("second", 2)
    for state in ("job_submitting", "job_submitted", "upload_submitting", "upload_submitted"):
        assert isinstance(world.write("second", m.Enter, state), m.Accepted), state
    assert isinstance(world.write("second", m.Enter, "complete"), m.Accepted)
    assert world.state.outcome == "complete"


def test_without_attempts_the_second_start_is_refused_as_upstream_does(world: World) -> None:
    world.plan = plan_of("cts:kbase_htcondor_subjob")
    world.grant("first", 1)
    world.write("first", m.Enter, "job_submitting")
    world.write("first", m.Enter, "job_submitted")
    # The second start writes as if it were the first: no attempt of its own, no new fence.
    decision = world.write("first", m.Enter, "job_submitting")
    assert world.refusal(decision) == "phase-order"


def test_a_zombie_cannot_report_an_error_over_its_successor(world: World) -> None:
    world.plan = plan_of("cts:kbase_htcondor_subjob")
    world.grant("first", 1)
    world.now += 121
    world.grant("second", 2)
    assert world.refusal(world.write("first", m.Enter, "error")) == "superseded-attempt"
    assert world.state.outcome is None
