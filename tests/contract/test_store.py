"""What every store has to do, seen through the ledger that uses it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.contract.drill import KEY, Drill, acquire, nonce
from tests.contract.stores import EXCLUSIVE, SHARED, StoreKind

from htlease import lifecycle
from htlease import messages as m
from htlease.attempt import Evidence, SubjobKey
from htlease.errors import BadConfig
from htlease.plan import PhaseSpec, Plan
from htlease.subjob import REQUESTS_KEPT, SubjobState
from htlease_server import deciding
from htlease_server.history import fold
from htlease_server.lanes import Lanes
from htlease_server.store import Batch, StoreFailed, WorkflowRow
from htlease_server.turn import Crashed, QueueFull

PLAN = Plan((PhaseSpec("fetch"), PhaseSpec("compute", "resume"), PhaseSpec("push", "once")))


only_exclusive = pytest.mark.parametrize("kind", EXCLUSIVE.values(), ids=EXCLUSIVE)
only_shared = pytest.mark.parametrize("kind", SHARED.values(), ids=SHARED)


def refused(answer: object) -> str:
    assert isinstance(answer, m.Rejection), answer
    return answer.code


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


def comparable(state: SubjobState) -> SubjobState:
    """Leave out what the history does not keep: renewed deadlines and the text of details."""
    phases = {name: replace(record, details=None) for name, record in state.phases.items()}
    return replace(state, deadline_at=0.0, details=None, phases=phases)


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


def test_a_request_that_comes_twice_at_once_is_done_once(drill: Drill) -> None:
    drill.acquire()
    drill.ask(m.Enter(1, nonce(1), "run"))
    twice = [drill.waiting(m.Fail(1, nonce(1), "run"), request_id="r-fail") for _ in range(2)]
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


def test_a_refused_request_may_come_again_and_be_accepted(drill: Drill) -> None:
    drill.acquire()
    assert refused(drill.ask(acquire(2), request_id="r-2")) == "lease-still-live"
    drill.ask(m.Abandon(1, nonce(1)))
    drill.restart(after_seconds=1)
    answer = drill.ask(acquire(2), request_id="r-2")
    assert isinstance(answer, m.Grant) and answer.fence == 2


def test_only_the_last_requests_are_remembered(drill: Drill) -> None:
    drill.acquire()
    for number in range(REQUESTS_KEPT + 10):
        drill.ask(m.Renew(1, nonce(1), f"details {number}"), request_id=f"r-{number}")
    row = drill.store.subjob(KEY)
    assert row is not None
    kept = [f"r-{number}" for number in range(10, REQUESTS_KEPT + 10)]
    entry = drill.keeper.cache.get(KEY)
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


def test_a_lease_lasts_through_several_downtimes_in_a_row(drill: Drill) -> None:
    drill.acquire(ttl_seconds=100)
    for _ in range(5):
        drill.now += 60
        drill.restart(after_seconds=3600)
    assert refused(drill.ask(acquire(2))) == "lease-still-live"
    assert drill.ask(m.Renew(1, nonce(1))) == m.Renewal(100.0, "stop")


def test_a_lease_that_had_lapsed_before_the_server_stopped_stays_lapsed(drill: Drill) -> None:
    drill.acquire(ttl_seconds=100)
    drill.now += 150
    drill.restart(after_seconds=10)
    assert drill.acquire(number=2).fence == 2


def test_renewals_reach_the_disk_a_little_later(drill: Drill) -> None:
    drill.acquire()
    drill.now += 60
    drill.ask(m.Renew(1, nonce(1)))
    assert drill.read(drill.reading.subjob(KEY))["expires_in_seconds"] == 120.0
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


# ------------------------------------------------------------ memory


def test_subjobs_that_fell_out_of_memory_come_back_as_they_were(drill: Drill) -> None:
    drill.restart(after_seconds=0, entries_max=3)
    keys = [SubjobKey("many", f"s-{number}") for number in range(20)]
    for key in keys:
        drill.acquire(key)
    drill.now += 100
    for key in keys:  # not on the disk yet when the next one pushes it out of memory
        drill.ask(m.Renew(1, nonce(1)), key)
    drill.now += 100
    for key in keys:
        assert drill.ask(m.Enter(1, nonce(1), "run"), key).entries == 1
        assert refused(drill.ask(acquire(2), key)) == "lease-still-live"
        assert len(drill.keeper.cache) <= 3


def test_waiting_commands_share_a_commit_and_are_decided_in_order(drill: Drill) -> None:
    drill.acquire(plan=PLAN)
    before = drill.ledger.commits.seconds.count
    commands: list[m.Command] = []
    for phase in ("fetch", "compute", "push"):
        commands += [m.Enter(1, nonce(1), phase), m.Complete(1, nonce(1), phase)]
    others = [drill.waiting(acquire(), SubjobKey("other", f"s-{n}")) for n in range(300)]
    answers = drill.ask_all(*(drill.waiting(command) for command in commands), *others)
    assert [answer.completed_fence for answer in answers[1:6:2]] == [1, 1, 1]
    assert all(isinstance(answer, m.Grant) for answer in answers[6:])
    assert drill.ledger.commits.seconds.count - before < 20


def test_a_full_queue_refuses_at_once(kind: StoreKind, tmp_path: Path) -> None:
    drill = Drill(kind, tmp_path)
    drill.restart(after_seconds=0, lanes=Lanes(writes_max=0))
    with pytest.raises(QueueFull):
        drill.ledger.submit(drill.waiting(acquire()))
    drill.close()


# ------------------------------------------------------------ a store that refuses


class RefusingStore:
    """A real store whose writes fail while `is_full`."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.is_full = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def write(self, batch: Batch, *how: Any) -> None:
        if self.is_full:
            raise StoreFailed("store x: database or disk is full")
        self._store.write(batch, *how)


@pytest.fixture
def refusing(kind: StoreKind, tmp_path: Path) -> Iterator[Drill]:
    drill = Drill(kind, tmp_path, RefusingStore)
    yield drill
    drill.store.is_full = False
    drill.close()


def set_full(drill: Drill, is_full: bool) -> None:
    drill.store.is_full = is_full


def test_a_refused_batch_changes_nothing_and_says_when_to_come_again(refusing: Drill) -> None:
    refusing.acquire()
    before = refusing.history()
    set_full(refusing, True)
    for command in (m.Enter(1, nonce(1), "run"), m.Exited(1, nonce(1), 0)):
        answer = refusing.ask(command, request_id="r-1")
        assert refused(answer) == "overloaded"
        assert isinstance(answer, m.Rejection) and "disk is full" in answer.detail
        assert answer.retry_after_seconds
    assert refused(refusing.ask(acquire(), SubjobKey("new", "s"))) == "overloaded"
    assert refusing.ledger.failure
    set_full(refusing, False)
    assert refusing.history() == before
    # Nothing of the refused ones is remembered: the same request ID is free, and fences go on.
    assert refusing.ask(m.Enter(1, nonce(1), "run"), request_id="r-1").entries == 1
    assert refusing.acquire(SubjobKey("new", "s")).fence == 1
    assert refusing.ledger.failure is None


@only_exclusive
def test_a_holder_can_renew_while_the_store_refuses(refusing: Drill) -> None:
    refusing.acquire()
    set_full(refusing, True)
    for _ in range(5):
        refusing.now += 100
        assert refusing.ask(m.Renew(1, nonce(1))) == m.Renewal(120.0, "continue")
        assert refused(refusing.ask(m.Enter(1, nonce(1), "run"))) == "overloaded"
    set_full(refusing, False)
    refusing.now += 100
    assert refused(refusing.ask(acquire(2))) == "lease-still-live"


def test_a_renewal_behind_a_refused_write_is_refused_with_it(refusing: Drill) -> None:
    set_full(refusing, True)
    answers = refusing.ask_all(refusing.waiting(acquire()), refusing.waiting(m.Renew(1, nonce(1))))
    # In one turn the renewal saw the grant that was taken back; in two there was no subjob.
    assert refused(answers[0]) == "overloaded"
    assert refused(answers[1]) in ("overloaded", "unknown-subjob")


def test_a_mistake_while_writing_ends_neither_the_writer_nor_the_server(
    refusing: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(refusing.keeper.cache, "resize", lambda *_: 1 / 0)
        assert refused(refusing.ask(m.Enter(1, nonce(1), "run"))) == "overloaded"
    assert refusing.ask(m.Enter(1, nonce(1), "run")).entries == 1


def test_a_mistake_while_deciding_hurts_only_its_own_request(
    drill: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill.acquire()
    before = drill.history()

    def decide(state: SubjobState, command: m.Command, now: float) -> m.Decision:
        if isinstance(command, m.Exited):
            raise AssertionError("a rule that contradicts itself")
        return lifecycle.decide(state, command, now)

    monkeypatch.setattr(deciding, "decide", decide)
    crashed, entered = drill.ask_all(
        drill.waiting(m.Exited(1, nonce(1))), drill.waiting(m.Enter(1, nonce(1), "run"))
    )
    assert crashed == Crashed() and entered.entries == 1
    assert len(drill.history()) == len(before) + 1


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
    batch = Batch(subjobs=[row._replace(status="cancelled")], history=[history[0]])
    with pytest.raises(StoreFailed):
        kind.write(store, batch)  # that event is there already
    assert store.subjob(KEY) == row
    store.close()


# ------------------------------------------------------------ look-ups


def test_a_subjob_is_found_by_every_id_it_was_known_by(drill: Drill) -> None:
    drill.ask(m.Enroll(None, links={"submitter": "ap0#7.0#1", "ce": "ce1#8.0#2"}))
    drill.acquire()
    known = ("ap0#7.0#1", "ce1#8.0#2", "ap1#42.0#1795225431", "ap1#42.0#1795225431@1.1", "sample-1")
    for id_text in known:
        found = drill.read(drill.reading.known_as(id_text))
        assert [(one["workflow"], one["subjob"]) for one in found] == [("run7", "sample-1")]
    assert drill.read(drill.reading.known_as("ap1#42")) == []


def test_no_document_shows_a_nonce_or_what_is_stored_of_it(drill: Drill) -> None:
    drill.acquire()
    drill.ask(acquire(2))
    drill.ask(m.Renew(7, nonce(3)))
    shown = json.dumps(
        [
            drill.read(drill.reading.subjob(KEY)) | {"plan": None},
            drill.read(drill.reading.history(KEY, 0, 100)),
            drill.read(drill.reading.workflow("run7", "", 100)),
        ]
    )
    assert "attempt-refused" in shown and "write-refused" in shown
    for number in (1, 2, 3):
        assert nonce(number) not in shown
        assert m.nonce_digest(nonce(number)) not in shown
    assert "nonce" not in shown


def test_counts_tell_lapsed_leases_from_renewed_ones(drill: Drill) -> None:
    for number in range(4):
        drill.acquire(SubjobKey("run7", f"s-{number}"))
    drill.ask(m.Abandon(1, nonce(1)), SubjobKey("run7", "s-3"))
    drill.now += 119
    drill.ask(m.Renew(1, nonce(1)), SubjobKey("run7", "s-0"))
    drill.now += 2
    workflow = drill.read(drill.reading.workflow("run7", "", 100))
    assert workflow["counts"] == {"active": 1, "lapsed": 2, "abandoned": 1}
    assert workflow["state"] == "running"
    assert [one["status"] for one in workflow["subjobs"]] == [
        "active",
        "lapsed",
        "lapsed",
        "abandoned",
    ]


def test_counts_after_a_downtime_call_no_extended_lease_lapsed(drill: Drill) -> None:
    drill.acquire()
    drill.restart(after_seconds=3600)
    assert drill.read(drill.reading.workflow("run7", "", 100))["counts"] == {"active": 1}


def test_lists_are_read_page_by_page(drill: Drill) -> None:
    for number in range(5):
        drill.acquire(SubjobKey(f"w-{number}", "s"))
        drill.acquire(SubjobKey("w-0", f"t-{number}"))
    pages, cursor = [], ""
    while cursor is not None:
        page = drill.read(drill.reading.workflows(cursor, 2))
        pages.append([one["workflow"] for one in page["workflows"]])
        cursor = page["next"]
    assert [name for page in pages for name in page] == [f"w-{number}" for number in range(5)]
    page = drill.read(drill.reading.workflow("w-0", "t-1", 2))
    assert [one["subjob"] for one in page["subjobs"]] == ["t-2", "t-3"]


def test_attempts_are_told_with_their_ends(drill: Drill) -> None:
    drill.acquire(plan=PLAN)
    drill.ask(m.Enter(1, nonce(1), "fetch"))
    drill.ask(m.Abandon(1, nonce(1), "evicted"))
    drill.acquire(number=2)
    drill.now += 130
    drill.acquire(number=3)
    drill.ask(m.Exited(3, nonce(3), 7))
    attempts = drill.read(drill.reading.subjob(KEY))["attempts"]
    assert [(one["fence"], one["why"], one["end"]) for one in attempts] == [
        (1, "first", "abandoned"),
        (2, "abandoned", "expired"),
        (3, "expired", "exited"),
    ]
    assert attempts[0]["reason"] == "evicted"
    assert attempts[0]["phases"][0]["name"] == "fetch"
    assert attempts[2]["exit_code"] == 7


# ------------------------------------------------------------ workflows


def test_a_workflow_gives_its_plan_to_its_subjobs(drill: Drill) -> None:
    drill.put("run7", plan={"phases": [{"name": "fetch"}, {"name": "push", "restart": "once"}]})
    assert [phase.name for phase in drill.acquire().phases] == ["fetch", "push"]


def test_a_template_can_be_copied_and_not_run(drill: Drill) -> None:
    drill.put("shape", profile="staged", template=True, labels={"owner": "ada"})
    answer = drill.ask(acquire(), SubjobKey("shape", "s"))
    assert isinstance(answer, m.Rejection)
    assert (answer.code, answer.field) == ("invalid", "workflow")
    copy = drill.put("run8", copy_of="shape", labels={"owner": "bob"})
    assert isinstance(copy, WorkflowRow) and not copy.template
    assert copy.labels == '{"owner":"bob"}'
    assert drill.acquire(SubjobKey("run8", "s")).phase is None  # a state machine's first is open
    missing = drill.put("run9", copy_of="nowhere")
    assert isinstance(missing, m.Rejection) and missing.field == "copy_of"


def test_a_put_that_comes_again_changes_nothing_and_another_body_is_refused(drill: Drill) -> None:
    first = drill.put("run7", request_id="p-1", labels={"a": "1"})
    assert drill.put("run7", request_id="p-1", labels={"a": "1"}) == first
    assert refused(drill.put("run7", request_id="p-1", labels={"a": "2"})) == "request-id-reused"
    changed = drill.put("run7", request_id="p-2", structure={"nodes": ["a"]})
    assert isinstance(changed, WorkflowRow) and changed.labels == '{"a":"1"}'


def test_evidence_of_an_older_start_is_refused_after_a_restart(drill: Drill) -> None:
    drill.acquire(number=2)
    drill.restart(after_seconds=5000)
    drill.now += 5000
    older = acquire(1, evidence=Evidence(job_starts=1, shadow_starts=1))
    assert refused(drill.ask(older)) == "superseded-attempt"
