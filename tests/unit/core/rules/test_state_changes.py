"""Small things that states are made of: copying with changes, and deadlines over downtimes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htlease.rules import messages as m
from htlease.rules.state import SubjobState, extended_deadline, replace

_INSTANTS = st.floats(0, 1e6)
_DURATIONS = st.floats(1, 1e5)


@pytest.mark.parametrize(
    ("value", "changes"),
    [
        (SubjobState(fence=3), {"fence": 4, "recalled_by": "x"}),
        (m.PhaseRecord("run", entries=2), {"entries": 3}),
        (SubjobState(), {}),
    ],
)
def test_replace_does_as_the_one_of_dataclasses(
    value: SubjobState, changes: dict[str, Any]
) -> None:
    before = dataclasses.replace(value)
    assert replace(value, **changes) == dataclasses.replace(value, **changes)
    assert value == before


def test_replace_takes_no_field_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="fense"):
        replace(SubjobState(), fense=4)


@given(deadline_at=_INSTANTS, ttl=_DURATIONS, alive_at=_INSTANTS, away=_DURATIONS)
def test_a_downtime_counts_once(
    deadline_at: float, ttl: float, alive_at: float, away: float
) -> None:
    """A deadline may be corrected whenever it is read: again, or after it was written anew."""
    started_at = alive_at + away
    once = extended_deadline(deadline_at, ttl, alive_at, started_at)
    assert extended_deadline(once, ttl, alive_at, started_at) == once
    renewed_at = started_at + 1
    renewed = extended_deadline(renewed_at + ttl, ttl, alive_at, started_at)
    assert renewed == renewed_at + ttl
