"""Deadlines through windows that are announced, moved, withdrawn, begun and ended in any order."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.rules.world import World

from htlease.rules import messages as m
from htlease.rules.state import Status, SubjobState
from htlease_server.engine.downtime import DowntimeCorrection, steady_clock
from htlease_server.engine.site.maintenance import (
    Announce,
    PutMaintenance,
    WindowChange,
    Withdraw,
    is_withdrawn,
)
from htlease_server.store.base import MaintenanceRow, Run

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
        true = DowntimeCorrection([], windows).deadline(TTL, TTL, now)
        assert DowntimeCorrection([], windows).deadline(stored, TTL, now) == true
        assert true >= told
        told = true
        if is_stored:
            stored = true
        windows = changed(windows, change, now)
        assert DowntimeCorrection([], windows).deadline(TTL, TTL, now) >= told


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
            assert DowntimeCorrection([], windows).deadline(5.0, TTL, now) == 5.0


def test_the_clock_of_another_machine_may_be_before_the_begin_again() -> None:
    window = MaintenanceRow(100.0, 500.0, None, "admin")
    downtime = DowntimeCorrection([Run(0.0, 200.0), Run(90.0, 95.0)], [window])
    assert downtime.deadline(108.0, TTL, 95.0) == 105.0, "no later than its ttl from now"
    assert downtime.deadline(104.0, TTL, 100.0) == 110.0, "it has begun once more"


def test_the_servers_clock_does_not_follow_steps_of_the_wall_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall, up = 1_800_000_000.0, 500.0
    monkeypatch.setattr(time, "time", lambda: wall)
    monkeypatch.setattr(time, "monotonic", lambda: up)
    clock = steady_clock()
    assert clock() == wall
    wall, up = 5.0, 502.5
    assert clock() == 1_800_000_002.5


def test_a_holder_was_heard_if_its_lease_was_written_in_this_run() -> None:
    downtime = DowntimeCorrection([Run(0.0, 8.0), Run(50.0, 60.0), Run(100.0, 100.0)])
    assert downtime.is_heard(100.0 + TTL, TTL) and downtime.is_heard(500.0, TTL)
    assert not downtime.is_heard(99.5 + TTL, TTL)
    assert DowntimeCorrection([Run(100.0, 100.0)]).is_heard(50.0, TTL), (
        "there was nobody else to hear it"
    )


def held(deadline_at: float) -> SubjobState:
    world = World(now=deadline_at)
    world.grant("a", 1)
    return replace(world.state, deadline_at=deadline_at)


def test_only_a_held_lease_is_corrected() -> None:
    downtime = DowntimeCorrection([Run(0.0, 1000.0), Run(2000.0, 2000.0)])
    state = held(1050.0)
    assert state.holder is not None
    ttl_seconds = state.holder.ttl_seconds
    assert downtime.correct(state, 2001.0) == replace(state, deadline_at=2000.0 + ttl_seconds)
    assert downtime.correct(held(990.0), 2001.0).deadline_at == 990.0
    for other in (
        replace(state, status=Status.COMPLETE),
        replace(state, status=Status.EXITED),
        replace(state, holder=None),
    ):
        assert downtime.correct(other, 2001.0) is other


def test_a_window_that_has_begun_gives_a_held_lease_its_ttl_from_its_end() -> None:
    state = held(1050.0)
    assert state.holder is not None
    ttl_seconds = state.holder.ttl_seconds
    window = MaintenanceRow(1040.0, 1400.0, None, "admin")
    downtime = DowntimeCorrection([Run(0.0, 0.0)], [window])
    assert downtime.keep(state, 1039.0) is state, "it has not begun"
    assert downtime.keep(state, 1040.0).deadline_at == 1040.0 + ttl_seconds, "no later than that"
    assert downtime.keep(state, 1390.0).deadline_at == 1390.0 + ttl_seconds
    assert downtime.keep(state, 9999.0).deadline_at == 1400.0 + ttl_seconds
    assert downtime.keep(held(1039.0), 9999.0).deadline_at == 1039.0, "it had run out"
    for other in (replace(state, status=Status.COMPLETE), replace(state, holder=None)):
        assert downtime.keep(other, 1390.0) is other
    assert DowntimeCorrection([Run(0.0, 0.0)]).keep(state, 1390.0) is state


def test_windows_count_in_the_order_in_which_they_begin() -> None:
    state = held(1050.0)
    assert state.holder is not None
    ttl_seconds = state.holder.ttl_seconds
    first, second = (
        MaintenanceRow(1040.0, 1100.0, None, "admin"),
        MaintenanceRow(1100.0 + ttl_seconds - 1, 5000.0, None, "admin"),
    )
    for windows in ([first, second], [second, first]):
        downtime = DowntimeCorrection([Run(0.0, 0.0)], windows)
        assert downtime.keep(state, 9999.0).deadline_at == 5000.0 + ttl_seconds
        assert downtime.deadline(1050.0, ttl_seconds, 9999.0) == 5000.0 + ttl_seconds
