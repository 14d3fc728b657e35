"""Takes one transfer forward by one step, so that its task is submitted exactly once.

    next_step(record)            what to do now, decided from the record alone
    Engine.advance(record, save) does it; `save` puts a record on the lease server

Order is everything: what is about to be done is saved, then done, then saved as done. Whoever
crashes in between leaves a record from which the next watcher looks the task up by its key before
it submits anything. Not promised: one submission by a service that neither recognises a key nor
can look one up; there a person is asked.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from htlease.rules.attempt import SubjobKey
from htlease_dagman.staging.transfer import (
    Backend,
    CannotFind,
    NeedsPerson,
    Refused,
    ServiceUnavailable,
    State,
    TaskStatus,
    Transfer,
)
from htlease_dagman.staging.transfer_record import TransferRecord, key_of

GENERATIONS_MAX_DEFAULT = 3
#: A service may need a moment to know a task that it has just accepted.
UNKNOWN_LOOKS_MAX = 3


class Step(enum.Enum):
    """What is to be done next."""

    SUBMIT = "submit"
    FIND = "find"
    POLL = "poll"


class Verdict(enum.Enum):
    """What the caller does now."""

    #: Come back later.
    WAIT = "wait"
    #: Come back at once.
    GO_ON = "go-on"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Adopted:
    """What a person has said about the task of a transfer."""

    #: Watch this task. None: no task was submitted under `unused_key`.
    external_id: str | None
    #: It may be cancelled like one of ours.
    is_owned: bool = False
    unused_key: str | None = None


def next_step(record: TransferRecord) -> Step:
    """Decide from the record what to do."""
    if record.external_id is not None:
        return Step.POLL
    return Step.FIND if record.is_asked else Step.SUBMIT


def take_up(
    record: TransferRecord, adopted: Adopted | None, *, is_alone: bool = False
) -> TransferRecord:
    """Return the record with which a new attempt begins; `is_alone`: no task outlives a watcher.

    A failed task is over: the attempt that follows it stands for a new one. Naming a task for
    adoption puts it in the place of any other that is not finished.
    """
    if adopted and adopted.external_id is None:
        # With the next generation comes another key, so that this is not said of it too.
        is_open = record.external_id is None or record.state == "needs-action"
        if is_open and record.key == adopted.unused_key:
            return record.next_generation("a person has seen that nothing of it is at work")
    elif adopted and adopted.external_id != record.external_id:
        is_fresh = record.external_id is None and not record.is_asked
        base = record if is_fresh else record.next_generation("replaced by an adopted task")
        return base.with_(
            external_id=adopted.external_id,
            is_adopted=True,
            is_owned=adopted.is_owned,
            state="submitted",
        )
    if record.state == "failed" and not record.is_adopted:
        return record.next_generation(record.text)
    if is_alone and record.state != "finished":
        return record.with_(external_id=None, is_asked=False, state="new")
    return record


def after_status(
    record: TransferRecord, status: TaskStatus, generations_max: int
) -> tuple[TransferRecord, Verdict]:
    """Decide what a look at the task means; pure."""
    assert record.external_id is not None
    name = f"task {record.external_id}"
    if status.state is State.NEEDS_ACTION:
        return waiting_for_person(record, status.text), Verdict.WAIT
    record = record.with_(action=None, noticed=None, text=status.text, counts=dict(status.counts))
    if status.state is State.DONE:
        return record.with_(state="finished"), Verdict.DONE
    if status.state is State.RUNNING:
        errors = record.poll_errors + status.is_unclear
        goes_on = record.with_(state="submitted", poll_errors=errors, unknown_looks=0)
        return goes_on, Verdict.WAIT
    if status.state is State.UNKNOWN:
        return _unknown(record, name, generations_max)
    why = f"{name} failed: {status.text or 'no reason given'}"
    if status.state is State.RETRYABLE and not record.is_adopted:
        return _again(record, why, generations_max)
    return record.with_(state="failed", text=why), Verdict.FAILED


def after_refusal(record: TransferRecord, refused: Refused) -> tuple[TransferRecord, Verdict]:
    """Decide what it means that a submission was certainly not accepted; pure."""
    why = f"the transfer was not accepted: {refused}"
    if refused.is_fatal:
        return record.with_(is_asked=False, state="failed", text=why), Verdict.FAILED
    errors = record.poll_errors + 1
    # The key was not used, so the next try is no new generation.
    waits = record.with_(is_asked=False, state="new", text=why, poll_errors=errors)
    return waits, Verdict.WAIT


def _unknown(
    record: TransferRecord, name: str, generations_max: int
) -> tuple[TransferRecord, Verdict]:
    if record.is_adopted:
        why = f"the service knows no {name}; check the ID and adopt the right one"
        return record.with_(state="failed", text=why), Verdict.FAILED
    record = record.with_(unknown_looks=record.unknown_looks + 1)
    if record.unknown_looks < UNKNOWN_LOOKS_MAX:
        return record, Verdict.WAIT
    return _again(record, f"the service no longer knows {name}", generations_max)


def _again(
    record: TransferRecord, why: str, generations_max: int
) -> tuple[TransferRecord, Verdict]:
    if record.generation >= generations_max:
        text = f"{why} (task {record.generation} of {generations_max} at most)"
        return record.with_(state="failed", text=text), Verdict.FAILED
    return record.next_generation(why), Verdict.GO_ON


def waiting_for_person(record: TransferRecord, action: str) -> TransferRecord:
    """Return the record of a transfer that goes on once a person has done something."""
    return record.with_(state="needs-action", action=action, text=action)


@dataclass
class Engine:
    """Moves one transfer on; each record that comes back is to be saved before the next step."""

    subjob: SubjobKey
    transfer: Transfer
    backend: Backend
    generations_max: int = GENERATIONS_MAX_DEFAULT

    def advance(
        self, record: TransferRecord, save: Callable[[TransferRecord], None]
    ) -> tuple[TransferRecord, Verdict]:
        """Do the next step.

        `save` makes an intent durable and returns only when the caller still holds the lease; it
        raises otherwise, and nothing further is done.
        """
        step = next_step(record)
        try:
            if step is Step.SUBMIT:
                return self._submit(record, save)
            return self._find(record) if step is Step.FIND else self._poll(record)
        except NeedsPerson as needs:
            return waiting_for_person(record, str(needs)), Verdict.WAIT
        except Refused as refused:
            if step is Step.SUBMIT:
                return after_refusal(record, refused)
            # The task may well go on, so that nothing fails for this.
            action = f"find out why the transfer service does not let itself be asked: {refused}"
            return waiting_for_person(record, action), Verdict.WAIT
        except ServiceUnavailable as away:
            text = f"the transfer service does not answer: {away}"
            return record.with_(text=text, poll_errors=record.poll_errors + 1), Verdict.WAIT

    def _submit(
        self, record: TransferRecord, save: Callable[[TransferRecord], None]
    ) -> tuple[TransferRecord, Verdict]:
        key = key_of(self.subjob, record.generation, self.transfer)
        reservation = record.reservation or self.backend.reserve(key)
        intent = record.with_(key=key, reservation=reservation, is_asked=True, state="intended")
        # A person who has done what was asked for need not be told again.
        intent = intent.with_(action=None)
        save(intent)
        try:
            return self._submitted(intent)
        except ServiceUnavailable as away:
            # It may have been accepted: looked up at the next step.
            return intent.with_(text=f"no answer to the submission: {away}"), Verdict.GO_ON
        except NeedsPerson as needs:
            return waiting_for_person(intent.with_(is_asked=False), str(needs)), Verdict.WAIT
        except Refused as refused:
            return after_refusal(intent, refused)

    def _submitted(self, intent: TransferRecord) -> tuple[TransferRecord, Verdict]:
        assert intent.key is not None
        external_id = self.backend.submit(intent.key, self.transfer, intent.reservation)
        made = intent.with_(external_id=external_id, state="submitted", text="", noticed=None)
        return made, Verdict.WAIT

    def _find(self, record: TransferRecord) -> tuple[TransferRecord, Verdict]:
        assert record.key is not None
        try:
            found = self.backend.find_by_key(record.key, record.reservation)
        except CannotFind:
            if self.backend.submits_once:
                return record.with_(is_asked=False), Verdict.WAIT
            raise NeedsPerson(
                f"find out whether a transfer with the key {record.key} was submitted; if so name"
                " it with `htlease stage adopt FILE TASK_ID`, if not run `htlease stage adopt FILE"
                f" --unused-key {record.key}`"
            ) from None
        if found is None:
            # Not at once: a command that always fails would be called without a pause.
            return record.with_(is_asked=False), Verdict.WAIT
        return record.with_(
            external_id=found, state="submitted", text="found by its key"
        ), Verdict.GO_ON

    def _poll(self, record: TransferRecord) -> tuple[TransferRecord, Verdict]:
        assert record.external_id is not None
        try:
            status = self.backend.poll(record.external_id)
        except CannotFind as cannot:
            if record.key is None:
                raise NeedsPerson(f"adopt the right task: {cannot}") from None
            raise NeedsPerson(
                f"make sure that nothing of task {record.external_id} is at work ({cannot}), then"
                f" run `htlease stage adopt FILE --unused-key {record.key}`"
            ) from None
        return after_status(record, status, self.generations_max)
