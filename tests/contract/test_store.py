"""What every store has to do, seen through the writer that uses it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.contract.drill import KEY, PLAN, Drill, acquire, comparable, nonce, refused
from tests.contract.stores import StoreKind, only_exclusive

from htlease.errors import BadConfig
from htlease.rules import messages as m
from htlease.rules.attempt import Evidence, SubjobKey
from htlease.rules.state import REQUESTS_KEPT
from htlease_server.engine.batch import Crashed
from htlease_server.engine.history import fold
from htlease_server.store.base import StoreFailed, WriteSet

# ------------------------------------------------------------ what was acknowledged lasts


def test_a_job_goes_from_its_first_grant_to_its_commit_across_restarts(drill: Drill) -> None:
    assert drill.acquire(plan=PLAN).phase == "fetch"
    for phase in ("fetch", "compute", "push"):
        drill.restart(after_seconds=1)
        assert drill.ask(m.Enter(1, nonce(1), phase)).entered_fence == 1
        drill.restart(after_seconds=1)
        assert drill.ask(m.Complete(1, nonce(1), phase)).completed_fence == 1
    assert drill.ask(m.Exited(1, nonce(1), 0)) == m.SubjobReply("complete", 1, "complete")
    drill.restart(after_seconds=1)
    assert refused(drill.ask(acquire(2))) == "subjob-closed"


def test_a_fence_never_goes_down_over_restarts(drill: Drill) -> None:
    fences = []
    for number in range(1, 8):
        fences.append(drill.acquire(number=number).fence)
        drill.ask(m.Abandon(fences[-1], nonce(number)))
        drill.restart(after_seconds=1)
    assert fences == [1, 2, 3, 4, 5, 6, 7]
    assert refused(drill.ask(m.Renew(3, nonce(3)))) == "superseded-attempt"


def test_details_come_back_after_a_restart(drill: Drill) -> None:
    drill.acquire()
    drill.ask(m.Renew(1, nonce(1), details="line 17 ü"))
    drill.restart(after_seconds=500)
    drill.ask(m.Abandon(1, nonce(1)))
    assert drill.acquire(number=2).details == "line 17 ü"


def test_the_history_folds_to_the_stored_state(drill: Drill) -> None:
    """Random commands by three attempts; some are refused, some wait, some are fenced."""
    draw = random.Random(20261121)
    for number in range(60):
        key = SubjobKey("fold", f"s-{number}")
        for _ in range(30):
            attempt = draw.randint(1, 3)
            fence, secret = draw.randint(1, 4), nonce(attempt)
            phase = draw.choice(["fetch", "compute", "push"])
            commands: list[m.Command] = [
                acquire(attempt, plan=draw.choice([None, PLAN])),
                acquire(attempt, global_job_id="ap1#43.0#1795229999"),
                m.Renew(fence, secret),
                m.Renew(fence, secret, f"details {draw.random()}"),
                m.Enter(fence, secret, phase),
                m.Complete(fence, secret, phase, {"out": "sha256:0"}),
                m.Fail(fence, secret, phase, "no space", 3),
                m.Exited(fence, secret, draw.randint(0, 255)),
                m.Abandon(fence, secret, "evicted"),
                m.Enroll("ap1#44.0#1795229999", 1, {"ce": "812.0"}),
            ]
            assert not isinstance(drill.ask(draw.choice(commands), key), Crashed)
            drill.now += draw.choice([0, 1, 60, 130])
        if drill.history(key):
            assert comparable(fold(drill.history(key))) == comparable(drill.state(key))


# ------------------------------------------------------------ requests that come again


def test_a_request_that_comes_again_gets_the_same_answer_and_changes_nothing(drill: Drill) -> None:
    drill.acquire()
    enter = m.Enter(1, nonce(1), "run")
    first = drill.ask(enter, request_id="r-enter")
    before = drill.history()
    assert drill.ask(enter, request_id="r-enter") == first
    drill.restart(after_seconds=1)
    assert drill.ask(enter, request_id="r-enter") == first
    assert drill.history() == before


def test_an_enroll_that_comes_again_is_told_the_epoch_that_it_made(drill: Drill) -> None:
    for number in (1, 2, 3):
        assert drill.ask(m.Enroll(), request_id=f"pre-{number}") == m.Enrolled(number)
    before = drill.history()
    for seconds in (0, 3600):
        assert drill.ask(m.Enroll(), request_id="pre-1") == m.Enrolled(1)
        assert drill.ask(m.Enroll(), request_id="pre-2") == m.Enrolled(2)
        assert refused(drill.ask(m.Enroll(retry=7), request_id="pre-1")) == "request-id-reused"
        drill.restart(after_seconds=seconds)
    assert drill.history() == before


def test_a_request_that_comes_twice_at_once_is_done_once(drill: Drill) -> None:
    drill.acquire()
    drill.ask(m.Enter(1, nonce(1), "run"))
    twice = [drill.pending(m.Fail(1, nonce(1), "run"), request_id="r-fail") for _ in range(2)]
    first, second = drill.ask_all(*twice)
    assert first == second
    assert [row.event for row in drill.history()].count("phase-failed") == 1


def test_a_request_id_with_another_body_or_call_is_refused(drill: Drill) -> None:
    drill.acquire()
    drill.ask(m.Enter(1, nonce(1), "run"), request_id="r-1")
    for other in (m.Complete(1, nonce(1), "run"), m.Exited(1, nonce(1), 0)):
        assert refused(drill.ask(other, request_id="r-1")) == "request-id-reused"
    drill.restart(after_seconds=1)
    assert refused(drill.ask(m.Abandon(1, nonce(1)), request_id="r-1")) == "request-id-reused"
    assert drill.state().status.value == "active"


def test_only_the_last_requests_are_remembered(drill: Drill) -> None:
    drill.acquire()
    for number in range(REQUESTS_KEPT + 10):
        drill.ask(m.Renew(1, nonce(1), f"details {number}"), request_id=f"r-{number}")
    row = drill.store.subjob(KEY)
    assert row is not None
    kept = [f"r-{number}" for number in range(10, REQUESTS_KEPT + 10)]
    entry = drill.states.cache.get(KEY)
    assert entry is not None and entry.requests is not None
    assert list(entry.requests) == kept
    assert [request_id for request_id, _ in drill.store.requests(row.id, REQUESTS_KEPT)] == kept


# ------------------------------------------------------------ deadlines


def test_a_lease_that_was_live_when_the_server_stopped_lasts_its_ttl_from_the_start(
    drill: Drill,
) -> None:
    drill.acquire(ttl_seconds=100)
    drill.now += 60
    drill.restart(after_seconds=3600)
    drill.now += 99
    assert refused(drill.ask(acquire(2))) == "lease-still-live"
    drill.now += 2
    assert drill.acquire(number=2).fence == 2


def test_a_lease_lasts_one_ttl_of_uptime_through_several_downtimes_in_a_row(drill: Drill) -> None:
    drill.acquire(ttl_seconds=100)
    drill.now += 60
    for _ in range(5):
        drill.restart(after_seconds=3600)
        drill.now += 15
    assert refused(drill.ask(acquire(2))) == "lease-still-live"
    drill.restart(after_seconds=3600)
    drill.now += 100
    assert drill.acquire(number=2).fence == 2


def test_a_lease_that_is_renewed_between_downtimes_has_its_ttl_after_each(drill: Drill) -> None:
    drill.acquire(ttl_seconds=100)
    for _ in range(5):
        drill.now += 60
        drill.restart(after_seconds=3600)
        drill.now += 1
        assert drill.ask(m.Renew(1, nonce(1))) == m.Renewal(100.0, "continue")
    drill.now += 60
    drill.restart(after_seconds=3600)
    drill.now += 99
    assert refused(drill.ask(acquire(2))) == "lease-still-live"


def test_a_lease_that_had_lapsed_before_the_server_stopped_stays_lapsed(drill: Drill) -> None:
    drill.acquire(ttl_seconds=100)
    drill.now += 150
    drill.restart(after_seconds=10)
    assert drill.acquire(number=2).fence == 2


def test_renewals_reach_the_disk_a_little_later(drill: Drill) -> None:
    drill.acquire()
    drill.now += 60
    drill.ask(m.Renew(1, nonce(1)))
    assert drill.read(drill.queries.subjob(KEY))["expires_in_seconds"] == 120.0
    renewed_until = drill.now + 120
    drill.flush()
    assert drill.state().deadline_at == renewed_until


def test_a_lapsed_lease_is_revived_on_the_disk_before_the_answer(drill: Drill) -> None:
    drill.acquire()
    drill.now += 500
    assert drill.ask(m.Renew(1, nonce(1))) == m.Renewal(120.0, "continue")
    assert drill.state().deadline_at == drill.now + 120


def test_a_clock_that_went_back_between_two_runs_makes_no_lease_longer_than_its_ttl(
    drill: Drill,
) -> None:
    drill.acquire(ttl_seconds=100)
    drill.restart(after_seconds=-86400)
    assert refused(drill.ask(acquire(2))) == "lease-still-live"
    drill.now += 101
    assert drill.acquire(number=2).fence == 2


def test_evidence_of_an_older_start_is_refused_after_a_restart(drill: Drill) -> None:
    drill.acquire(number=2)
    drill.restart(after_seconds=5000)
    drill.now += 5000
    older = acquire(1, evidence=Evidence(job_starts=1, shadow_starts=1))
    assert refused(drill.ask(older)) == "superseded-attempt"


# ------------------------------------------------------------ the store itself


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE history SET actor = 'somebody else'",
        "DELETE FROM history WHERE seq = 1",
    ],
)
def test_history_cannot_be_changed(kind: StoreKind, drill: Drill, tmp_path: Path, sql: str) -> None:
    drill.acquire()
    before = drill.history()
    with pytest.raises(Exception, match="append-only"):
        kind.tamper(tmp_path, sql)
    assert drill.history() == before


def test_a_store_of_a_newer_version_is_refused(
    kind: StoreKind, drill: Drill, tmp_path: Path
) -> None:
    drill.acquire()
    drill.stop()
    kind.tamper(tmp_path, kind.make_newer)
    versions = f"version {kind.version + 1}.*knows version {kind.version}.*upgrade"
    with pytest.raises(BadConfig, match=versions) as refusal:
        kind.open(tmp_path)
    assert drill.store.name in str(refusal.value)


@only_exclusive
def test_a_second_server_on_the_same_store_is_refused(
    kind: StoreKind, drill: Drill, tmp_path: Path
) -> None:
    with pytest.raises(BadConfig, match="another htlease server"):
        kind.open(tmp_path)
    drill.acquire()


def test_a_batch_is_kept_wholly_or_not_at_all(
    kind: StoreKind, drill: Drill, tmp_path: Path
) -> None:
    drill.acquire()
    history = drill.history()
    drill.stop()
    store = kind.open(tmp_path)
    row = store.subjob(KEY)
    write_set = WriteSet(subjobs=[row._replace(status="cancelled")], history=[history[0]])
    with pytest.raises(StoreFailed):
        kind.write(store, write_set)  # that event is there already
    assert store.subjob(KEY) == row
    store.close()
