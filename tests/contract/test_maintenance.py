"""No lease runs out in an announced window, whatever happens to servers in it."""

from __future__ import annotations

import pytest
from tests.contract.drill import KEY, Drill, acquire, nonce

from htlease.rules import messages as m
from htlease_server.store.base import MaintenanceRow

DAY = 86400.0
NEWER = acquire(2)


def is_live(drill: Drill) -> bool:
    """Tell whether a newer attempt has to wait. It recalls, so ask last."""
    answer = drill.ask(NEWER)
    if isinstance(answer, m.Rejection):
        assert answer.code == "lease-still-live"
        return True
    return False


def test_a_lease_outlasts_the_window_by_its_ttl(drill: Drill) -> None:
    drill.acquire()
    drill.now += 60
    drill.maintain(14 * DAY, "the yearly one")
    drill.now += 14 * DAY + 119
    assert drill.read(drill.queries.subjob(KEY))["status"] == "active"
    assert is_live(drill)


def test_it_runs_out_when_nobody_renews_it_afterwards(drill: Drill) -> None:
    drill.acquire()
    drill.maintain(14 * DAY)
    drill.now += 14 * DAY + 121
    assert drill.read(drill.queries.subjob(KEY))["status"] == "lapsed"
    assert not is_live(drill)


def test_a_lease_that_had_run_out_before_stays_so(drill: Drill) -> None:
    drill.acquire()
    drill.now += 121
    drill.maintain(DAY)
    drill.now += 10
    assert not is_live(drill)


@pytest.mark.parametrize("down_from", [1.0, 13 * DAY])
@pytest.mark.parametrize("down_until", [13.5 * DAY, 15 * DAY])
def test_a_server_may_be_down_in_the_window_and_beyond(
    drill: Drill, down_from: float, down_until: float
) -> None:
    drill.acquire()
    drill.maintain(14 * DAY)
    drill.now += down_from
    drill.restart(after_seconds=down_until - down_from)
    drill.now += max(0.0, 14 * DAY - down_until) + 119
    assert is_live(drill)


def test_a_lease_taken_in_the_window_is_kept_too(drill: Drill) -> None:
    drill.maintain(DAY)
    drill.now += 10
    drill.acquire()
    drill.now += DAY
    assert is_live(drill)


def test_a_renewed_lease_after_the_window_is_an_ordinary_one(drill: Drill) -> None:
    drill.acquire()
    drill.maintain(DAY)
    drill.now += DAY + 60
    renewal = drill.ask(m.Renew(1, nonce(1)))
    assert renewal == m.Renewal(120.0, "continue")
    drill.now += 119
    assert drill.read(drill.queries.subjob(KEY))["status"] == "active"
    drill.now += 2
    assert drill.read(drill.queries.subjob(KEY))["status"] == "lapsed"


def test_a_window_that_is_ended_early_ends_then(drill: Drill) -> None:
    drill.acquire()
    drill.maintain(14 * DAY, "the yearly one")
    drill.now += DAY
    ended = drill.maintain(0)
    assert ended.until_at == drill.now
    assert ended.reason == "the yearly one"
    drill.now += 121
    assert not is_live(drill)


def test_an_open_window_can_be_prolonged_over_a_restart(drill: Drill) -> None:
    drill.acquire()
    first = drill.maintain(DAY)
    drill.restart(after_seconds=DAY / 2)
    second = drill.maintain(DAY)
    assert (second.started_at, second.until_at) == (first.started_at, drill.now + DAY)
    shown = drill.read(drill.queries.maintenance())
    assert len(shown["windows"]) == 1
    assert shown["open"]["is_open"] is True
    drill.now += DAY + 100
    assert is_live(drill)
    assert drill.read(drill.queries.maintenance())["open"] is None


def test_a_window_that_the_store_refused_is_not_there(refusing: Drill) -> None:
    refusing.acquire()
    refusing.store.is_full = True
    answer = refusing.maintain(DAY)
    refusing.store.is_full = False
    assert isinstance(answer, m.Rejection) and answer.code == "overloaded"
    assert refusing.read(refusing.queries.maintenance()) == {
        "open": None,
        "next": None,
        "windows": [],
    }
    refusing.now += 121
    assert not is_live(refusing)


def test_windows_are_kept_as_they_were_announced(drill: Drill) -> None:
    drill.maintain(60, "a disk")
    first_at = drill.now
    drill.now += 3600
    drill.maintain(60)
    drill.restart(after_seconds=10)
    assert list(drill.store.maintenance()) == [
        MaintenanceRow(first_at, first_at + 60, "a disk", "admin"),
        MaintenanceRow(first_at + 3600, first_at + 3660, None, "admin"),
    ]
