"""Every test of this folder runs on each store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.drill import STORES, Drill, StoreKind


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> StoreKind:
    return STORES[request.param]


@pytest.fixture
def drill(kind: StoreKind, tmp_path: Path) -> Iterator[Drill]:
    drill = Drill(lambda: kind.open(tmp_path))
    yield drill
    drill.close()
