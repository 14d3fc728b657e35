"""What the tests of the lease rules share."""

from __future__ import annotations

import pytest

from tests.unit.core.rules.world import World


@pytest.fixture
def world() -> World:
    return World()
