"""A primary that loses its power, a standby that takes over, and servers that are killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.checker.run import Settings, run
from tests.checker.sites import FailoverSite

SECONDS = float(os.environ.get("HTLEASE_CHECK_SECONDS", "30"))
SEED = int(os.environ.get("HTLEASE_CHECK_SEED", "1"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FailoverSite]:
    site = FailoverSite(tmp_path / "site")
    yield site
    site.close()


def test_what_was_acknowledged_before_a_failover_holds_after_it(site: FailoverSite) -> None:
    """No write is lost, no fence comes twice, and a lease that was live lives on."""
    seen = run(site, Settings(SEED, SECONDS, at_once=24))
    print(seen)
    assert seen.findings() == []
    assert seen.outages, seen
    last_outage = seen.outages[-1]
    acknowledged = [
        delivery
        for recording in seen.recordings
        for delivery in recording.deliveries
        if delivery.status == 200 and delivery.command is not None
    ]
    assert any(delivery.answered_at < last_outage.down_at for delivery in acknowledged)
    assert any(delivery.sent_at > last_outage.started_at for delivery in acknowledged)
    # The same clients asked before and afterwards.
    assert any(
        recording.deliveries[0].sent_at < outage.down_at
        and recording.deliveries[-1].status == 200
        and recording.deliveries[-1].sent_at > outage.started_at
        for recording in seen.recordings
        for outage in seen.outages
        if recording.deliveries
    )
