"""The Job Router on a real pool: one subjob through copies, evictions and crashes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.pool.lab import Lab
from tests.pool.relay import RelayProcess
from tests.pool.routing import install_router, submit_routed


@pytest.fixture(scope="module")
def routed(lab: Lab) -> Iterator[Lab]:
    """A pool whose access point routes jobs, with our hooks and a relay."""
    relay = RelayProcess(lab)
    relay.start()
    install_router(lab)
    yield lab
    lab.pool.configure("ap", "router", None)
    relay.stop()


def found(lab: Lab, identifier: str) -> list[str]:
    """Return the keys of the subjobs that know an ID."""
    from urllib.parse import quote

    answer: dict[str, Any] = lab.server.ask("GET", f"subjobs?id={quote(identifier, safe='')}")
    return [f"{each['workflow']}/{each['subjob']}" for each in answer["subjobs"]]


def test_a_copy_that_is_evicted_removed_and_held_stays_one_subjob(routed: Lab) -> None:
    job = submit_routed(routed, "chain", {"block": {"compute": [1, 2, 3]}}, ttl_seconds=10)
    first = job.wait_copy(status=2)
    job.source.wait_told("alive", "compute", attempt=1)
    routed.pool.vacate(f"{first['ClusterId']}.0")
    job.source.wait_told("alive", "compute", attempt=2)
    routed.pool.remove(f"{first['ClusterId']}.0")
    second = job.wait_copy(after=first["ClusterId"], status=2)
    job.source.wait_told("alive", "compute", attempt=3)
    copy = f"{second['ClusterId']}.0"
    routed.pool.hold(copy)
    routed.pool.wait_status(copy, "held")
    routed.pool.wait_status(job.source.job, "held")
    routed.pool.release(copy)
    document = job.source.wait_status("complete")
    ad = job.wait_final()
    assert [attempt["fence"] for attempt in document["attempts"]] == [1, 2, 3, 4]
    assert job.epochs() == [1, 1, 2, 2]
    assert ad["HTLeaseState"] == "complete", ad
    for identifier in (
        ad["GlobalJobId"], job.source.job, first["GlobalJobId"], f"{first['ClusterId']}.0",
        second["GlobalJobId"], copy,
    ):  # fmt: skip
        assert job.source.key in found(routed, identifier), identifier
