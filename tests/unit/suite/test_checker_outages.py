"""What the history checker holds a server to over outages (rule 8), on promises made by hand."""

from __future__ import annotations

import pytest
from tests.checker.holders import kept_until
from tests.checker.record import Delivery, Outage

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey

TTL = 10.0
FIRST = Outage(down_at=105.0, gone_at=105.0, started_at=107.0)


def _promise(sent_at: float, seconds: float = TTL) -> tuple[float, Delivery]:
    said = {"expires_in_seconds": seconds}
    renewal = m.Renew(1, "nonce")
    return sent_at + seconds, Delivery(
        SubjobKey("w", "s"), renewal, "r", sent_at, sent_at, 200, said
    )


@pytest.mark.parametrize(
    ("sent_at", "later", "until"),
    [
        ((100.0,), (), 117.0),
        ((90.0,), (), float("-inf")),
        # Silent since the first outage, so the second only takes no time from the lease.
        ((100.0,), (Outage(108.0, 108.0, 111.0),), 120.0),
        # It was over before the second.
        ((100.0,), (Outage(118.0, 118.0, 120.0),), 117.0),
        # Heard between the two, so the second grants one ttl again.
        ((100.0, 107.5), (Outage(108.0, 108.0, 111.0),), 121.0),
    ],
)
def test_an_outage_keeps_a_lease_for_a_ttl_and_later_ones_stretch_that(
    sent_at: tuple[float, ...], later: tuple[Outage, ...], until: float
) -> None:
    promises = [_promise(at) for at in sent_at]
    assert kept_until(promises, TTL, (FIRST, *later)) == until


def test_an_answer_that_comes_again_is_no_sign_of_the_holder() -> None:
    promises = [_promise(100.0), _promise(107.5, 9.5)]
    assert kept_until(promises, TTL, (FIRST, Outage(108.0, 108.0, 111.0))) == 120.0
