"""The history checker knows what a repeated request is to be answered."""

from __future__ import annotations

import json

import pytest

from htlease.rules import messages as m
from htlease.rules.acquire import decide
from htlease.rules.attempt import SubjobKey
from htlease.rules.state import SubjobState, apply
from htlease_server.engine.history import EVENT_NAMES, data_of
from tests.checker.explain import findings
from tests.checker.record import Delivery, Recording

KEY = SubjobKey("w", "s")


def _enrolled_twice(answer_again: dict[str, int]) -> Recording:
    """A submission that nobody has named is enrolled, then another; the first is sent again."""
    command = m.Enroll(None, 1, {"ce": "ce1#1.0"})
    state, history, deliveries = SubjobState(), [], []
    for number in (1, 2):
        decision = decide(state, command, number)
        state = apply(state, decision.events, number)
        row = {"seq": number, "at": f"2026-11-21T00:00:0{number}.000Z", "request_id": f"r{number}"}
        (event,) = decision.events
        history.append(row | {"event": EVENT_NAMES[type(event)]} | json.loads(data_of(event)))
        deliveries.append(
            Delivery(KEY, command, f"r{number}", number, number + 0.5, 200, {"epoch": number})
        )
    deliveries.append(Delivery(KEY, command, "r1", 3, 3.5, 200, answer_again))
    return Recording(KEY, deliveries, history, None)


@pytest.mark.parametrize(("epoch", "is_right"), [(1, True), (2, False), (3, False)])
def test_a_repeated_enrollment_is_to_be_answered_with_the_epoch_that_it_made(
    epoch: int, is_right: bool
) -> None:
    kinds = [finding.kind for finding in findings(_enrolled_twice({"epoch": epoch}))]
    assert kinds == ([] if is_right else ["answers"]) + ["state"]  # nobody looked at its end
