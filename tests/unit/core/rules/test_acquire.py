"""Who holds the lease: the rules one by one, each test a row of the table in `acquire`."""

import dataclasses

import pytest
from tests.unit.core.rules.world import GJID, STAGED, World, nonce

from htlease.errors import InvalidField
from htlease.rules import messages as m
from htlease.rules.acquire import replayed_reply
from htlease.rules.attempt import Evidence, Place
from htlease.rules.plan import PhaseSpec, Plan
from htlease.rules.state import Status, after_downtime

SLOT = Place("ep1", "slot1_1@ep1", "<10.0.0.1:9618>#1700000000")
OTHER_SLOT = Place("ep1", "slot1_2@ep1", "<10.0.0.1:9618>#1700000000")


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


def test_no_evidence_never_outranks_some(world: World) -> None:
    """An ID that nobody has announced makes nobody later who cannot show more."""
    world.grant("first", 1)
    stranger = m.Acquire(nonce("stranger"), kind="post", global_job_id="dagman#7/0")
    assert world.refusal(world.send(stranger)) == "lease-still-live"
    assert world.state.recalled_by is None
    enrolled = m.Enroll("ap1#43.0#1795225499")
    world.send(enrolled)
    announced = dataclasses.replace(stranger, global_job_id=enrolled.global_job_id)
    assert world.refusal(world.send(announced)) == "lease-still-live"
    assert world.state.recalled_by == "ap1#43.0#1795225499@-.-"


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
