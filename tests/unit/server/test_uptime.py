"""Deadlines through windows that are announced, moved, withdrawn, begun and ended in any order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from htlease import messages as m
from htlease_server.maintenance import (
    Announce,
    PutMaintenance,
    WindowChange,
    Withdraw,
    is_withdrawn,
)
from htlease_server.store import MaintenanceRow, Run
from htlease_server.uptime import Uptime

TTL = 10.0
_INSTANTS = st.integers(1, 12).map(float)
_CHANGES = (
    st.builds(Announce, _INSTANTS, _INSTANTS, st.none(), st.none() | _INSTANTS)
    | st.builds(Withdraw, _INSTANTS)
    | st.builds(PutMaintenance, st.sampled_from([0.0, 1.0, 20.0]))
)
#: After how long somebody does what.
_STEPS = st.lists(st.tuples(st.integers(0, 5).map(float), _CHANGES), max_size=12)


def changed(
    windows: tuple[MaintenanceRow, ...], change: WindowChange, now: float
) -> tuple[MaintenanceRow, ...]:
    rows = change.rows(windows, now, "admin")
    if isinstance(rows, m.Rejection):
        return windows
    by_begin = {row.started_at: row for row in (*windows, *rows)}
    return tuple(by_begin.values())


@settings(max_examples=500)
@given(_STEPS, st.booleans())
def test_no_deadline_that_was_told_is_taken_back_and_storing_one_changes_nothing(
    steps: list[tuple[float, WindowChange]], is_stored: bool
) -> None:
    now, stored, told = 0.0, TTL, TTL
    windows: tuple[MaintenanceRow, ...] = ()
    for seconds, change in steps:
        now += seconds
        true = Uptime([], windows).deadline(TTL, TTL, now)
        assert Uptime([], windows).deadline(stored, TTL, now) == true
        assert true >= told
        told = true
        if is_stored:
            stored = true
        windows = changed(windows, change, now)
        assert Uptime([], windows).deadline(TTL, TTL, now) >= told


@given(_STEPS)
def test_what_only_is_to_begin_or_was_withdrawn_changes_no_deadline(
    steps: list[tuple[float, WindowChange]],
) -> None:
    windows: tuple[MaintenanceRow, ...] = ()
    for _, change in steps:
        if not isinstance(change, PutMaintenance):
            windows = changed(windows, change, 0.0)
    first = min((w.started_at for w in windows if not is_withdrawn(w)), default=100.0)
    for now in range(100):
        if now < first:
            assert Uptime([], windows).deadline(5.0, TTL, now) == 5.0


def test_the_clock_of_another_machine_may_be_before_the_begin_again() -> None:
    window = MaintenanceRow(100.0, 500.0, None, "admin")
    uptime = Uptime([Run(0.0, 200.0), Run(90.0, 95.0)], [window])
    assert uptime.deadline(108.0, TTL, 95.0) == 105.0, "no later than its ttl from now"
    assert uptime.deadline(104.0, TTL, 100.0) == 110.0, "it has begun once more"
