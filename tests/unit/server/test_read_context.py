"""What a look-up takes for the true deadline of a lease."""

from __future__ import annotations

from htlease_server.engine.downtime import DowntimeCorrection
from htlease_server.engine.states.state_source import ReadContext
from htlease_server.store.base import Run

TTL = 10.0
RESTARTED = DowntimeCorrection([Run(0.0, 20.0), Run(100.0, 100.0)])


def test_a_renewal_that_is_not_on_the_disk_counts() -> None:
    read_context = ReadContext(103.0, RESTARTED, {7: (112.5, TTL)})
    assert read_context.deadline(7, 25.0, TTL) == 112.5
    assert read_context.deadline(7, 19.0, TTL) == 112.5


def test_any_other_lease_ends_as_stored_but_for_the_outage() -> None:
    read_context = ReadContext(101.0, RESTARTED, {7: (110.5, TTL)})
    assert read_context.deadline(8, 25.0, TTL) == 110.0, "it was live when the server went away"
    assert read_context.deadline(8, 19.0, TTL) == 19.0
    assert read_context.deadline(8, 140.0, TTL) == 111.0, "its ttl from now at the latest"
