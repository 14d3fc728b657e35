"""A transfer's task is submitted once, whatever is lost; pure decisions and a service in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htlease.rules.attempt import SubjobKey
from htlease_dagman.staging.engine import (
    UNKNOWN_LOOKS_MAX,
    Adopted,
    Engine,
    Step,
    Verdict,
    after_refusal,
    after_status,
    next_step,
    take_up,
)
from htlease_dagman.staging.transfer import (
    CannotFind,
    Item,
    NeedsPerson,
    Place,
    Refused,
    ServiceUnavailable,
    State,
    TaskStatus,
    Transfer,
)
from htlease_dagman.staging.transfer_record import TransferRecord, key_of, read_record

KEY = SubjobKey("run7", "stage-in")
TRANSFER = Transfer(Place("a", "/a"), Place("b", "/b"), (Item("x", "x"),))
SUBMITTED = TransferRecord(key="k", is_asked=True, external_id="t1", state="submitted")


class Died(Exception):
    """The watcher was killed here."""


@dataclass
class Service:
    """A transfer service that loses what it is told to lose."""

    #: One word for each submit call: ok, lost (carried out, no answer), deaf (neither), die (the
    #: watcher is killed when the call was carried out), busy.
    fates: list[str] = field(default_factory=list)
    submits_once: bool = False
    ends_with_watcher: bool = False
    can_find: bool = True
    tasks: dict[str, str] = field(default_factory=dict)
    submissions: int = 0
    status: TaskStatus = field(default_factory=lambda: TaskStatus(State.RUNNING))
    #: It has lost all that it knew.
    is_empty: bool = False

    def reserve(self, key: str) -> str | None:
        return f"reserved for {key}" if self.submits_once else None

    def submit(self, key: str, transfer: Transfer, reservation: str | None) -> str:
        fate = self.fates.pop(0) if self.fates else "ok"
        if fate == "deaf":
            raise ServiceUnavailable("no route")
        if fate == "busy":
            raise Refused("too many tasks", is_fatal=False)
        if not self.submits_once or key not in self.tasks:
            self.submissions += 1
            self.tasks[key] = f"t{self.submissions}"
        if fate == "die":
            raise Died
        if fate == "lost":
            raise ServiceUnavailable("connection reset")
        return self.tasks[key]

    def poll(self, external_id: str) -> TaskStatus:
        if self.is_empty:
            raise CannotFind("it has lost its queue")
        return self.status

    def cancel(self, external_id: str) -> None:
        raise AssertionError("nobody asked for that")

    def find_by_key(self, key: str, reservation: str | None = None) -> str | None:
        if not self.can_find:
            raise CannotFind("no way to ask")
        return self.tasks.get(key)

    def check(self, place: Place, has_to_exist: bool) -> str | None:
        return None

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Life:
    """Watchers that follow each other, with what the lease server keeps."""

    service: Service
    #: What happens at each save of an intent: True, or False when the watcher dies just after it.
    saves: list[bool] = field(default_factory=list)
    saved: TransferRecord = field(default_factory=TransferRecord)

    def save(self, record: TransferRecord) -> None:
        self.saved = record
        if self.saves and not self.saves.pop(0):
            raise Died

    def live(self, steps: int) -> TransferRecord:
        """Take so many steps, with a new watcher after each death."""
        engine = Engine(KEY, TRANSFER, self.service)
        record = self.saved
        for _ in range(steps):
            try:
                record, _ = engine.advance(record, self.save)
                self.saved = record
            except Died:
                record = take_up(self.saved, None)
        return record


def test_the_intent_is_saved_before_the_submit_call() -> None:
    service = Service()
    seen: list[tuple[TransferRecord, int]] = []
    engine = Engine(KEY, TRANSFER, service)

    record, verdict = engine.advance(
        TransferRecord(), lambda r: seen.append((r, service.submissions))
    )

    assert [(intent.is_asked, intent.external_id, n) for intent, n in seen] == [(True, None, 0)]
    assert (record.external_id, verdict) == ("t1", Verdict.WAIT)


def test_nothing_is_submitted_when_the_intent_cannot_be_saved() -> None:
    service = Service()

    def refuse(_: TransferRecord) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        Engine(KEY, TRANSFER, service).advance(TransferRecord(), refuse)
    assert service.submissions == 0


@given(
    st.lists(st.sampled_from(["ok", "lost", "deaf", "die", "busy"]), max_size=8),
    st.lists(st.booleans(), max_size=8),
    st.booleans(),
)
def test_a_task_is_submitted_once_whatever_is_lost(
    fates: list[str], saves: list[bool], submits_once: bool
) -> None:
    service = Service(list(fates), submits_once)
    record = Life(service, list(saves)).live(steps=40)
    assert service.submissions == 1
    assert record.external_id == "t1"


@given(st.lists(st.sampled_from(["ok", "lost", "deaf", "die"]), max_size=8))
def test_a_service_that_knows_keys_needs_no_look_up(fates: list[str]) -> None:
    service = Service(list(fates), submits_once=True, can_find=False)
    assert Life(service).live(steps=40).external_id == "t1"
    assert service.submissions == 1


def test_a_service_that_can_neither_find_nor_recognise_asks_a_person() -> None:
    service = Service(["lost"], can_find=False)
    record = Life(service).live(steps=10)
    assert service.submissions == 1
    assert record.state == "needs-action"
    assert record.key is not None and record.key in (record.action or "")

    told = take_up(record, Adopted(None, unused_key=record.key))
    assert next_step(told) is Step.SUBMIT
    assert next_step(take_up(record, Adopted(None, unused_key="another"))) is Step.FIND
    found = take_up(record, Adopted("t1"))
    assert (found.external_id, found.is_adopted) == ("t1", True)


def test_a_service_that_lost_its_tasks_asks_a_person_before_another_is_made() -> None:
    service = Service()
    life = Life(service)
    assert life.live(steps=5).state == "submitted"
    service.is_empty = True
    record = life.live(steps=UNKNOWN_LOOKS_MAX + 5)
    assert (service.submissions, record.state, record.external_id) == (1, "needs-action", "t1")
    assert "t1" in (record.action or "") and str(record.key) in (record.action or "")

    told = take_up(record, Adopted(None, unused_key=record.key))
    assert (told.generation, next_step(told)) == (2, Step.SUBMIT)
    assert next_step(take_up(record, Adopted(None, unused_key="another"))) is Step.POLL


def test_the_key_survives_a_resubmission_and_nothing_else() -> None:
    assert key_of(KEY, 1, TRANSFER) == key_of(SubjobKey("run7", "stage-in"), 1, TRANSFER)
    other = Transfer(TRANSFER.source, TRANSFER.destination, (Item("y", "y"),))
    keys = {
        key_of(KEY, 1, TRANSFER),
        key_of(KEY, 2, TRANSFER),
        key_of(SubjobKey("run8", "stage-in"), 1, TRANSFER),
        key_of(KEY, 1, other),
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("status", "record", "state", "verdict"),
    [
        (TaskStatus(State.RUNNING), SUBMITTED, "submitted", Verdict.WAIT),
        (TaskStatus(State.DONE), SUBMITTED, "finished", Verdict.DONE),
        (TaskStatus(State.NEEDS_ACTION, "log in"), SUBMITTED, "needs-action", Verdict.WAIT),
        (TaskStatus(State.FATAL, "gone"), SUBMITTED, "failed", Verdict.FAILED),
        (TaskStatus(State.RETRYABLE, "busy"), SUBMITTED, "new", Verdict.GO_ON),
        (TaskStatus(State.RETRYABLE), SUBMITTED.with_(generation=3), "failed", Verdict.FAILED),
        (TaskStatus(State.RETRYABLE), SUBMITTED.with_(is_adopted=True), "failed", Verdict.FAILED),
        (TaskStatus(State.UNKNOWN), SUBMITTED, "submitted", Verdict.WAIT),
        (TaskStatus(State.UNKNOWN), SUBMITTED.with_(is_adopted=True), "failed", Verdict.FAILED),
    ],
)
def test_what_a_look_at_a_task_means(
    status: TaskStatus, record: TransferRecord, state: str, verdict: Verdict
) -> None:
    after, found = after_status(record, status, 3)
    assert (after.state, found) == (state, verdict)


def test_a_task_that_a_service_forgot_is_followed_by_another() -> None:
    record = SUBMITTED
    for _ in range(UNKNOWN_LOOKS_MAX - 1):
        record, verdict = after_status(record, TaskStatus(State.UNKNOWN), 3)
        assert verdict is Verdict.WAIT
    seen, _ = after_status(record, TaskStatus(State.RUNNING), 3)
    assert seen.unknown_looks == 0
    record, verdict = after_status(record, TaskStatus(State.UNKNOWN), 3)
    assert (record.generation, record.external_id, verdict) == (2, None, Verdict.GO_ON)
    assert "t1" in record.past[0]


def test_unclear_answers_keep_waiting_and_are_counted() -> None:
    unclear = TaskStatus(State.RUNNING, "", is_unclear=True)
    record, verdict = after_status(SUBMITTED, unclear, 3)
    record, verdict = after_status(record, unclear, 3)
    assert (record.poll_errors, verdict) == (2, Verdict.WAIT)


def test_a_service_that_is_away_keeps_waiting_and_is_counted() -> None:
    class Silent(Service):
        def poll(self, external_id: str) -> TaskStatus:
            raise ServiceUnavailable("no route")

    record, verdict = Engine(KEY, TRANSFER, Silent()).advance(SUBMITTED, lambda _: None)
    assert (record.poll_errors, verdict) == (1, Verdict.WAIT)
    assert record.external_id == "t1"


def test_an_action_is_forgotten_once_it_was_taken_so_that_the_next_is_told() -> None:
    needs, _ = after_status(SUBMITTED, TaskStatus(State.NEEDS_ACTION, "log in"), 3)
    told = needs.with_(noticed=needs.action)
    still, _ = after_status(told, TaskStatus(State.NEEDS_ACTION, "log in"), 3)
    assert still.noticed == "log in"
    well, _ = after_status(still, TaskStatus(State.RUNNING), 3)
    assert (well.action, well.noticed) == (None, None)


def test_a_submission_that_needs_a_person_waits_under_the_same_key() -> None:
    class Closed(Service):
        def submit(self, key: str, transfer: Transfer, reservation: str | None) -> str:
            raise NeedsPerson("log in again")

    record, verdict = Engine(KEY, TRANSFER, Closed()).advance(TransferRecord(), lambda _: None)
    assert (record.state, record.action, verdict) == ("needs-action", "log in again", Verdict.WAIT)
    assert next_step(record) is Step.SUBMIT
    assert record.generation == 1


def test_a_service_that_refuses_to_show_a_task_fails_nothing() -> None:
    class Shut(Service):
        def poll(self, external_id: str) -> TaskStatus:
            raise Refused("PermissionDenied: not yours", is_fatal=True)

    record, verdict = Engine(KEY, TRANSFER, Shut()).advance(SUBMITTED, lambda _: None)
    assert (record.state, record.external_id, verdict) == ("needs-action", "t1", Verdict.WAIT)
    assert "not yours" in (record.action or "")


def test_a_submission_that_is_not_permitted_fails_at_once() -> None:
    class Forbidding(Service):
        def submit(self, key: str, transfer: Transfer, reservation: str | None) -> str:
            raise Refused("PermissionDenied", is_fatal=True)

    record, verdict = Engine(KEY, TRANSFER, Forbidding()).advance(TransferRecord(), lambda _: None)
    assert (record.state, record.is_asked, verdict) == ("failed", False, Verdict.FAILED)
    assert "PermissionDenied" in record.text


def test_a_refused_submission_waits_or_fails() -> None:
    asked = TransferRecord(key="k", is_asked=True)
    record, verdict = after_refusal(asked, Refused("busy", is_fatal=False))
    assert (record.generation, record.is_asked, verdict) == (1, False, Verdict.WAIT)
    record, verdict = after_refusal(asked, Refused("not permitted", is_fatal=True))
    assert (record.state, verdict) == ("failed", Verdict.FAILED)


def test_an_attempt_after_a_failed_task_stands_for_a_new_one() -> None:
    failed = SUBMITTED.with_(state="failed", text="gone")
    after = take_up(failed, None)
    assert (after.generation, after.external_id) == (2, None)
    assert take_up(SUBMITTED, None) == SUBMITTED
    adopted = failed.with_(is_adopted=True)
    assert take_up(adopted, Adopted("t1")) == adopted


def test_adopting_replaces_another_task() -> None:
    after = take_up(SUBMITTED, Adopted("t9", is_owned=True))
    assert (after.external_id, after.is_adopted, after.is_owned) == ("t9", True, True)
    assert "t1" in after.past[0]
    assert take_up(after, Adopted("t9")) == after


def test_a_record_survives_being_saved() -> None:
    record = SUBMITTED.with_(counts={"files": "3"}, past=("t0: failed",), noticed="x" * 9999)
    assert read_record(record.to_text()) == record
    assert len(record.to_text()) < 2000
    assert read_record('{"generation":2,"state":"new","of_a_later_version":1}').generation == 2
    assert read_record(None) == TransferRecord()
