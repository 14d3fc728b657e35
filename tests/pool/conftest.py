"""One personal pool for all tests of this folder; without one they fail."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pool.lab import Lab
from tests.pool.relay import RelayProcess, install_shadow_hook
from tests.pool.relay_jobs import PROXY_PORT

from htlease_minipool import Pool

_CHECKOUT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.pool)


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """A pool with empty queues, in which this checkout is visible on the access point."""
    # Test sessions that run at the same time get one pool each.
    for number in range(1, 10):
        pool = Pool(f"tests{number}", shared=[_CHECKOUT])
        pool.directory.parent.mkdir(parents=True, exist_ok=True)
        with pool.directory.with_suffix(".session").open("w") as session:
            try:
                fcntl.flock(session, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            pool.down()
            pool.up()
            yield pool
            pool.down()
            return
    pytest.fail("nine test sessions already have a pool each")


@pytest.fixture(scope="module")
def relay(lab: Lab) -> Iterator[RelayProcess]:
    """A relay that every starting job of the pool asks."""
    relay = RelayProcess(lab, "--poll", "1", "--listen", f"{lab.pool.ap_address}:{PROXY_PORT}")
    relay.start()
    install_shadow_hook(lab, relay)
    yield relay
    lab.pool.configure("ap", "relay-test", None)
    relay.stop()
