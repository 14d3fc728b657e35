"""What is kept of one subjob has an end, and its holder's lease does not depend on it."""

from __future__ import annotations

import dataclasses

import pytest

from htlease.rules import messages as m
from htlease.rules.acquire import decide
from htlease.rules.quotas import EVENTS_MAX, STATE_MAX_BYTES, SUBMISSIONS_MAX, over_quota
from htlease.rules.state import SubjobState, apply

NONCE = "nonce-of-a-test-0123456789"
OTHER = "nonce-of-another-012345678"


@pytest.fixture
def held() -> SubjobState:
    """A subjob that is held under fence 1."""
    decision = decide(SubjobState(), m.Acquire(NONCE, global_job_id="ap#1.0#1"), 0.0)
    assert isinstance(decision, m.Accepted)
    return apply(SubjobState(), decision.events, 0.0)


def code(state: SubjobState, command: m.Command, events: int = 1, size: int = 1000) -> str | None:
    refused = over_quota(state, command, events, size)
    return None if refused is None else refused.code


ADDING = [
    m.Enroll("ap#1.0#1"),
    m.Enroll(None),
    m.Enter(1, NONCE, "run"),
    m.Complete(1, NONCE, "run"),
    m.Fail(1, NONCE, "run"),
    m.Renew(1, NONCE, "details"),
]
KEEPING = [
    m.Renew(1, NONCE),
    m.Acquire(NONCE, global_job_id="ap#1.0#1"),
    m.Exited(1, NONCE, 0),
    m.Abandon(1, NONCE),
    m.Commit(1, NONCE),
    m.Cancel(),
]


@pytest.mark.parametrize("command", ADDING + KEEPING, ids=repr)
def test_within_its_quotas_a_subjob_takes_everything(held: SubjobState, command: m.Command) -> None:
    assert code(held, command, EVENTS_MAX - 1, STATE_MAX_BYTES - 1) is None


@pytest.mark.parametrize("command", ADDING, ids=repr)
def test_a_full_record_takes_nothing_that_only_adds_to_it(
    held: SubjobState, command: m.Command
) -> None:
    assert code(held, command, events=EVENTS_MAX) == "quota-exceeded"
    assert code(held, command, size=STATE_MAX_BYTES) == "quota-exceeded"


@pytest.mark.parametrize("command", KEEPING, ids=repr)
def test_whoever_holds_the_lease_keeps_it_and_ends_with_it(
    held: SubjobState, command: m.Command
) -> None:
    assert code(held, command, EVENTS_MAX * 2, STATE_MAX_BYTES * 2) is None


def test_a_new_attempt_needs_room_in_the_history_alone(held: SubjobState) -> None:
    newcomer = m.Acquire(OTHER, global_job_id="ap#1.0#1")
    assert code(held, newcomer, events=EVENTS_MAX) == "quota-exceeded"
    assert code(held, newcomer, size=STATE_MAX_BYTES) is None


def test_a_subjob_has_so_many_submissions_and_no_more(held: SubjobState) -> None:
    known = {f"ap#{number}.0#1": number for number in range(SUBMISSIONS_MAX)}
    full = dataclasses.replace(held, submissions=known)
    for command in (m.Enroll("ap#new.0#1"), m.Acquire(OTHER, global_job_id="ap#new.0#1")):
        assert code(full, command) == "quota-exceeded"
    for command in (m.Enroll("ap#7.0#1"), m.Acquire(OTHER, global_job_id="ap#7.0#1")):
        assert code(full, command) is None
