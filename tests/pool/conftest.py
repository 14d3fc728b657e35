"""One personal pool for all tests of this folder; without one they fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pool.lab import Lab, Server, Witness

from htlease_minipool import Pool

_CHECKOUT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.pool)


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    """A pool with empty queues, in which this checkout is visible on the access point."""
    pool = Pool("tests", shared=[_CHECKOUT])
    pool.down()
    pool.up()
    yield pool
    pool.down()


@pytest.fixture(scope="session")
def lab(pool: Pool, tmp_path_factory: pytest.TempPathFactory, pyz: Path) -> Iterator[Lab]:
    """A lease server that both execution points can reach, and a witness for the payloads."""
    server = Server(pool.ap_address, tmp_path_factory.mktemp("server"))
    server.start()
    witness = Witness(pool.ap_address)
    yield Lab(pool, server, witness, pyz)
    witness.close()
    server.stop()
