"""The lease rules one by one, each test a row of the manual's table."""

import dataclasses

import pytest

from htlease import messages as m
from htlease.attempt import Evidence, Place
from htlease.errors import InvalidField
from htlease.lifecycle import replayed_reply
from htlease.plan import PhaseSpec, Plan
from htlease.profiles import plan_of
from htlease.subjob import CLOSED, GRANTS_KEPT, REFUSALS_KEPT, Status, after_downtime
from tests.unit.core.world import GJID, STAGED, World, nonce

SLOT = Place("ep1", "slot1_1@ep1", "<10.0.0.1:9618>#1700000000")
OTHER_SLOT = Place("ep1", "slot1_2@ep1", "<10.0.0.1:9618>#1700000000")


@pytest.fixture
def world() -> World:
    return World()


def test_the_first_attempt_is_granted_fence_one(world: World) -> None:
    grant = world.grant("first", 1)
    assert (grant.fence, grant.attempt_number, grant.reclaimed) == (1, 1, False)
    assert grant.attempt_id == f"{GJID}@1.1"
    assert grant.phase == "stage-in"
    assert grant.expires_in_seconds == 120


# ---------------------------------------------------------------- rule 1: replay


def test_the_same_nonce_gets_the_same_grant_with_the_deadline_moved(world: World) -> None:
    world.grant("first", 1)
    world.now += 100
    again = world.grant("first", 1)
    assert (again.fence, again.expires_in_seconds) == (1, 120)


def test_a_checkpoint_restart_in_the_same_sandbox_keeps_the_lease(world: World) -> None:
    world.grant("first", 1, sandbox_seq=1)
    world.run("first", "stage-in")
    again = world.grant("first", 1, sandbox_seq=2)
    assert again.fence == 1
    assert again.phase == "compute", "what this holder completed is still in its sandbox"


def test_a_nonce_whose_lease_was_given_up_is_not_reused(world: World) -> None:
    world.grant("first", 1)
    world.write("first", m.Abandon)
    assert world.refusal(world.acquire("first", 1)) == "superseded-attempt"


def test_a_request_that_comes_again_changes_nothing_and_tells_the_same(world: World) -> None:
    world.grant("first", 1)
    world.run("first", "stage-in")
    late = m.Enter(1, nonce("first"), "stage-in")
    decision = replayed_reply(world.state, late, world.now)
    assert isinstance(decision, m.Accepted)
    assert decision.events == ()
    assert decision.reply == world.state.phases["stage-in"]


def test_a_repeated_renewal_promises_nobody_the_lease_of_the_next_holder(world: World) -> None:
    world.grant("first", 1)
    saved = m.Renew(1, nonce("first"), "half way")
    world.write("first", m.Renew, "half way")
    world.now += 121
    assert world.grant("second", 2).fence == 2
    decision = replayed_reply(world.state, saved, world.now)
    assert isinstance(decision, m.Rejection) and decision.code == "superseded-attempt"


# ---------------------------------------------------------------- rule 2: free


@pytest.mark.parametrize("end", ["abandon", "exited", "expiry"])
def test_a_later_attempt_is_granted_once_the_lease_is_free(world: World, end: str) -> None:
    world.grant("first", 1)
    if end == "abandon":
        world.write("first", m.Abandon, "evicted")
    elif end == "exited":
        world.write("first", m.Exited, 1)
    else:
        world.now += 120
    grant = world.grant("second", 2)
    assert (grant.fence, grant.attempt_number, grant.reclaimed) == (2, 2, True)
    acquired = world.history[-1]
    assert isinstance(acquired, m.LeaseAcquired)
    assert acquired.why == {"abandon": "abandoned", "exited": "exited", "expiry": "expired"}[end]
    assert acquired.ended_before == ("expired" if end == "expiry" else None)


def test_the_same_start_may_try_again_with_a_new_nonce_once_free(world: World) -> None:
    world.grant("first", 1)
    world.write("first", m.Abandon)
    grant = world.grant("first again", 1)
    assert (grant.fence, grant.attempt_number) == (2, 1)


# ---------------------------------------------------------------- rule 3: newer, lease live


def test_a_newer_attempt_recalls_a_live_lease_and_waits(world: World) -> None:
    world.grant("first", 1)
    refused = world.acquire("second", 2)
    assert world.refusal(refused) == "lease-still-live"
    assert isinstance(refused, m.Rejection)
    assert refused.retry_after_seconds is not None
    assert 0 < refused.retry_after_seconds <= 120
    assert f"{GJID}@1.1" in refused.detail
    renewal = world.write("first", m.Renew)
    assert isinstance(renewal, m.Accepted)
    assert renewal.reply == m.Renewal(120, "stop")


def test_a_recalled_holder_cannot_renew_but_may_finish(world: World) -> None:
    world.grant("first", 1)
    world.acquire("second", 2)
    deadline_at = world.state.deadline_at
    world.now += 60
    world.write("first", m.Renew, "details of the last minute")
    assert world.state.deadline_at == deadline_at
    assert world.state.details == "details of the last minute"
    world.run("first", "stage-in", "compute", "stage-out")
    assert world.state.status is Status.COMPLETE


def test_a_recalled_holder_is_not_revived_after_its_deadline(world: World) -> None:
    world.grant("first", 1)
    world.acquire("second", 2)
    world.now += 121
    assert world.refusal(world.acquire("first", 1)) == "superseded-attempt"
    renewal = world.write("first", m.Renew)
    assert isinstance(renewal, m.Accepted)
    assert renewal.reply == m.Renewal(0, "stop")
    assert world.grant("second", 2).fence == 2


def test_the_same_slot_of_the_same_startd_is_proof_of_the_end(world: World) -> None:
    world.grant("first", 1, place=SLOT)
    grant = world.grant("second", 1, shadow=3, place=SLOT)
    assert grant.fence == 2
    acquired = world.history[-1]
    assert isinstance(acquired, m.LeaseAcquired)
    assert (acquired.why, acquired.ended_before) == ("same-slot", "superseded")


@pytest.mark.parametrize(
    ("why_not", "place", "start", "kind"),
    [
        ("another slot", OTHER_SLOT, 2, "job"),
        (
            "another startd instance",
            dataclasses.replace(SLOT, startd="<10.0.0.1:9618>#9"),
            2,
            "job",
        ),
        ("slot unknown", dataclasses.replace(SLOT, slot=None), 2, "job"),
        ("not a later start", SLOT, 1, "job"),
        ("a script has no slot", SLOT, 2, "post"),
    ],
)
def test_anything_less_than_the_same_slot_is_no_proof(
    world: World, why_not: str, place: Place, start: int, kind: str
) -> None:
    world.grant("first", 1, place=SLOT)
    decision = world.acquire("second", start, place=place, kind=kind)
    assert world.refusal(decision) == "lease-still-live", why_not


def test_another_process_in_the_same_sandbox_is_no_proof(world: World) -> None:
    world.grant("first", 1, place=SLOT, sandbox_seq=1)
    assert (
        world.refusal(world.acquire("second", 1, place=SLOT, sandbox_seq=2)) == "lease-still-live"
    )


def test_takeover_immediate_fences_the_older_attempt_at_once(world: World) -> None:
    world.plan = dataclasses.replace(STAGED, takeover="immediate")
    world.grant("first", 1)
    assert world.grant("second", 2).fence == 2
    assert world.refusal(world.write("first", m.Enter, "stage-in")) == "superseded-attempt"


# ---------------------------------------------------------------- rules 4 and 5


@pytest.mark.parametrize("how", ["live", "abandoned", "expired", "exited"])
def test_an_older_attempt_is_refused_for_ever(world: World, how: str) -> None:
    world.grant("second", 2)
    if how == "abandoned":
        world.write("second", m.Abandon)
    elif how == "exited":
        world.write("second", m.Exited, 0)
    elif how == "expired":
        world.now += 1000
    assert world.refusal(world.acquire("first", 1)) == "superseded-attempt"
    assert world.state.fence == 1


def test_a_same_start_with_another_nonce_waits_and_recalls_nobody(world: World) -> None:
    world.grant("first", 1)
    assert world.refusal(world.acquire("twin", 1)) == "lease-still-live"
    assert world.state.status is Status.ACTIVE
    world.now += 120
    assert world.grant("twin", 1).fence == 2


def test_unclear_evidence_waits_and_recalls_nobody(world: World) -> None:
    world.grant("first", 2, shadow=4)
    assert world.refusal(world.acquire("forged", 3, shadow=1)) == "lease-still-live"
    assert world.state.status is Status.ACTIVE
    world.now += 120
    assert world.grant("forged", 3, shadow=1).fence == 2


def test_counters_of_a_script_do_not_order_a_job(world: World) -> None:
    world.grant("first", 5)
    assert world.refusal(world.acquire("post", 1, kind="post")) == "lease-still-live"
    world.write("first", m.Exited, 0)
    assert world.grant("post", 1, kind="post").fence == 2
    assert world.refusal(world.acquire("post twin", 1, kind="post")) == "lease-still-live"


# ---------------------------------------------------------------- epochs


def test_a_later_submission_is_newer_whatever_its_counters(world: World) -> None:
    world.grant("first", 7)
    world.write("first", m.Abandon)
    assert world.grant("resubmitted", 1, gjid="ap1#43.0#1795230000").epoch == 2
    world.write("resubmitted", m.Abandon)
    assert world.refusal(world.acquire("old start", 8)) == "superseded-attempt"


def test_an_enrolled_epoch_goes_to_the_first_unknown_submission(world: World) -> None:
    assert isinstance(enrolled := world.send(m.Enroll()), m.Accepted)
    assert enrolled.reply == m.Enrolled(1)
    assert world.grant("first", 1).epoch == 1
    again = world.send(m.Enroll(GJID))
    assert isinstance(again, m.Accepted)
    assert again.reply == m.Enrolled(1)
    assert world.state.awaiting_epoch is None


def test_enrolling_a_known_submission_again_records_its_links(world: World) -> None:
    world.send(m.Enroll(GJID))
    linked = world.send(m.Enroll(GJID, links={"source": "19.0"}))
    assert isinstance(linked, m.Accepted)
    assert linked.reply == m.Enrolled(1)
    (event,) = linked.events
    assert isinstance(event, m.SubmissionEnrolled)
    assert event.links == {"source": "19.0"}


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


# ---------------------------------------------------------------- rule 8: clock


def test_a_lapsed_lease_that_nobody_took_is_revived_by_its_holder(world: World) -> None:
    world.grant("first", 1)
    world.now += 5000
    assert world.state.status_at(world.now) is Status.LAPSED
    renewal = world.write("first", m.Renew)
    assert isinstance(renewal, m.Accepted)
    assert renewal.reply == m.Renewal(120, "continue")
    assert world.refusal(world.acquire("second", 2)) == "lease-still-live"


def test_a_lease_that_was_live_at_the_crash_lasts_its_ttl_after_the_restart(world: World) -> None:
    world.grant("first", 1)
    crashed_at, started_at = world.now + 60, world.now + 86400
    world.state = after_downtime(world.state, crashed_at, started_at)
    assert world.state.deadline_at == started_at + 120
    world.now = started_at + 119
    assert world.refusal(world.acquire("twin", 1)) == "lease-still-live"


def test_a_lease_that_had_lapsed_before_the_crash_stays_lapsed(world: World) -> None:
    world.grant("first", 1)
    deadline_at = world.state.deadline_at
    world.state = after_downtime(world.state, deadline_at + 1, deadline_at + 100)
    assert world.state.deadline_at == deadline_at


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


# ---------------------------------------------------------------- what cannot be asked


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("nonce", lambda: m.Acquire("short")),
        ("kind", lambda: m.Acquire(nonce("a"), "cron")),
        ("ttl_seconds", lambda: m.Acquire(nonce("a"), ttl_seconds=0.1)),
        ("ttl_seconds", lambda: m.Acquire(nonce("a"), ttl_seconds=float("nan"))),
        ("details", lambda: m.Renew(1, nonce("a"), "x" * 65537)),
        ("details", lambda: m.Renew(1, nonce("a"), "ä" * 40000)),
        ("outcome", lambda: m.Settle(1, nonce("a"), "done")),
        ("phase.name", lambda: PhaseSpec("stage in")),
        ("restart", lambda: PhaseSpec("compute", "again")),
        ("plan.phases", lambda: Plan(())),
        ("plan.phases", lambda: Plan((PhaseSpec("a"), PhaseSpec("a")))),
        ("plan.takeover", lambda: Plan((PhaseSpec("a"),), "soon")),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_field(field: str, make: object) -> None:
    with pytest.raises(InvalidField) as caught:
        make()  # type: ignore[operator]
    assert field in caught.value.field


def test_evidence_is_not_required(world: World) -> None:
    decision = world.send(m.Acquire(nonce("bare"), evidence=Evidence()))
    assert isinstance(decision, m.Accepted)
