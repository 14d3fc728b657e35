"""A refused request that comes again gets the same answer, also once it could be granted."""

from __future__ import annotations

from tests.contract.drill import KEY, Drill, acquire, nonce, refused
from tests.contract.stores import StoreKind, only_shared

from htlease.rules import messages as m
from htlease.rules.plan import PhaseSpec, Plan
from htlease_server.engine.states.cache import REFUSED_KEPT

FIRST, LATER = "refused-1", "refused-2"


def wait_in_vain(drill: Drill) -> None:
    """Have the second start refused twice: once on record, and once as it asks again."""
    drill.acquire()
    for request_id in (FIRST, LATER):
        assert refused(drill.ask(acquire(2), request_id=request_id)) == "lease-still-live"
    drill.ask(m.Abandon(1, nonce(1)))


def test_it_is_not_granted_once_the_lease_is_free(drill: Drill) -> None:
    """Who asked may be gone, and its lease would keep the next one waiting for a ttl."""
    wait_in_vain(drill)
    seen = drill.history()
    for request_id in (FIRST, LATER):
        answer = drill.ask(acquire(2), request_id=request_id)
        assert refused(answer) == "lease-still-live" and answer.retry_after_seconds
    assert drill.history() == seen
    assert drill.acquire(number=3).fence == 2


def test_another_request_of_the_same_attempt_is_granted(drill: Drill) -> None:
    wait_in_vain(drill)
    assert drill.acquire(number=2).fence == 2


def test_it_is_refused_when_it_comes_again_with_another_body(drill: Drill) -> None:
    wait_in_vain(drill)
    assert refused(drill.ask(acquire(3), request_id=LATER)) == "request-id-reused"


def test_the_first_refusal_of_an_attempt_is_recognised_after_a_restart(drill: Drill) -> None:
    wait_in_vain(drill)
    drill.restart(after_seconds=1)
    answer = drill.ask(acquire(2), request_id=FIRST)
    assert refused(answer) == "lease-still-live" and answer.retry_after_seconds
    assert drill.acquire(number=3).fence == 2


def test_a_subjob_that_was_closed_stays_so_for_the_request_that_was_told_so(drill: Drill) -> None:
    drill.acquire()
    drill.ask(m.Cancel("no longer wanted"))
    asked = acquire(2, global_job_id=None, kind="pre")
    before = drill.ask(asked, request_id=FIRST)
    assert (refused(before), before.outcome) == ("subjob-closed", "cancelled")
    drill.ask(m.Enroll(None, force=True))
    for seconds in (0, 1):
        if seconds:
            drill.restart(after_seconds=seconds)
        again = drill.ask(asked, request_id=FIRST)
        assert (again.code, again.outcome, again.detail) == (
            "subjob-closed",
            "cancelled",
            before.detail,
        )
    assert isinstance(drill.ask(asked), m.Grant)


def test_a_phase_that_a_flag_held_back_is_not_entered_by_the_same_request(drill: Drill) -> None:
    drill.acquire(plan=Plan((PhaseSpec("run", needs=("hpss",)),)))
    drill.flag("hpss", is_up=False)
    enter = m.Enter(1, nonce(1), "run")
    assert refused(drill.ask(enter, request_id=FIRST)) == "blocked"
    drill.flag("hpss", is_up=True)
    assert refused(drill.ask(enter, request_id=FIRST)) == "blocked"
    assert isinstance(drill.ask(enter), m.PhaseRecord)


def test_no_more_are_recognised_than_fit(drill: Drill) -> None:
    drill.acquire()
    for number in range(REFUSED_KEPT + 10):
        drill.ask(acquire(2), request_id=f"again-{number}")
    entry = drill.states.cache.get(KEY)
    assert entry is not None and len(entry.refused) == REFUSED_KEPT


@only_shared
def test_the_first_refusal_is_recognised_by_the_other_server(drill: Drill, kind: StoreKind) -> None:
    other = Drill(kind, drill.folder)
    try:
        wait_in_vain(drill)
        other.now = drill.now
        assert refused(other.ask(acquire(2), request_id=FIRST)) == "lease-still-live"
    finally:
        other.close()
