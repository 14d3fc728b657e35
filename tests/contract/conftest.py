"""Every test of this folder runs on each store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import postgres
from tests.contract.drill import Drill
from tests.contract.stores import STORES, RefusingStore, StoreKind


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> StoreKind:
    return STORES[request.param]


@pytest.fixture
def drill(kind: StoreKind, tmp_path: Path) -> Iterator[Drill]:
    drill = Drill(kind, tmp_path)
    yield drill
    drill.close()


@pytest.fixture
def refusing(kind: StoreKind, tmp_path: Path) -> Iterator[Drill]:
    """A drill whose `store.is_full` can be set."""
    drill = Drill(kind, tmp_path, RefusingStore)
    yield drill
    drill.store.is_full = False
    drill.close()


@pytest.fixture(scope="session", autouse=True)
def no_cluster_is_left() -> Iterator[None]:
    yield
    if postgres.shared_cluster.cache_info().currsize:
        postgres.shared_cluster().remove()
