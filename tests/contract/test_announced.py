"""A window that is announced for later acts from its begin on, and not before; nobody acts then."""

from __future__ import annotations

import pytest
from tests.contract.drill import KEY, START, Drill, acquire, nonce, refused

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease_server.store.base import MaintenanceRow

HOUR = 3600.0
DAY = 24 * HOUR
TTL = 120.0


def at(drill: Drill, seconds: float) -> None:
    drill.now = START + seconds


def status(drill: Drill) -> str:
    found = drill.read(drill.queries.subjob(KEY))
    return str(found["status"])


def told(drill: Drill) -> dict[str, object]:
    shown = drill.read(drill.queries.maintenance())
    return {
        name: shown[name] and shown[name]["is_announced" if name == "next" else "is_open"]
        for name in ("open", "next")
    }


def test_until_it_begins_everything_is_as_usual(drill: Drill) -> None:
    drill.announce(HOUR, DAY)
    drill.acquire()
    at(drill, TTL + 1)
    assert status(drill) == "lapsed"
    assert drill.acquire(number=2).fence == 2
    assert drill.ask(m.Renew(2, nonce(2))) == m.Renewal(TTL, "continue")
    assert told(drill) == {"open": None, "next": True}


@pytest.mark.parametrize("restarts_after", [None, 10.0, 200.0, DAY])
def test_a_lease_that_lives_when_it_begins_outlasts_it(
    drill: Drill, restarts_after: float | None
) -> None:
    drill.announce(HOUR, DAY, reason="the yearly one")
    at(drill, HOUR - 60)
    drill.acquire()
    if restarts_after is not None:
        drill.restart(after_seconds=restarts_after)
    at(drill, DAY + TTL - 1)
    assert status(drill) == "active"
    assert refused(drill.ask(acquire(2))) == "lease-still-live"
    at(drill, 2 * DAY)
    assert status(drill) == "lapsed"


def test_a_lease_that_lapsed_a_moment_before_the_begin_stays_so(drill: Drill) -> None:
    drill.announce(TTL, DAY)
    drill.acquire()
    at(drill, TTL + 10)
    assert status(drill) == "lapsed", "its deadline was the very begin"
    assert drill.acquire(number=2).fence == 2
    at(drill, HOUR)
    assert status(drill) == "active"


def test_it_is_open_at_its_begin_and_over_at_its_end(drill: Drill) -> None:
    drill.announce(HOUR, DAY)
    for seconds, expected in (
        (HOUR - 0.01, {"open": None, "next": True}),
        (HOUR, {"open": True, "next": None}),
        (DAY - 0.01, {"open": True, "next": None}),
        (DAY, {"open": None, "next": None}),
    ):
        at(drill, seconds)
        assert told(drill) == expected


def test_it_can_be_moved_until_it_begins(drill: Drill) -> None:
    drill.announce(HOUR, DAY, reason="new cooling")
    moved = drill.announce(2 * HOUR, 2 * DAY, instead_of=HOUR)
    assert moved == MaintenanceRow(START + 2 * HOUR, START + 2 * DAY, "new cooling", "admin")
    assert drill.announce(2 * HOUR, 2 * DAY, instead_of=HOUR) == moved, "it may be sent twice"
    later = drill.announce(2 * HOUR, 3 * DAY)
    assert later.until_at == START + 3 * DAY
    assert len(drill.read(drill.queries.maintenance())["windows"]) == 1
    at(drill, HOUR - 60)
    drill.acquire()
    at(drill, HOUR + 61)
    assert status(drill) == "lapsed"
    at(drill, 2 * HOUR)
    drill.acquire(number=2)
    at(drill, 3 * DAY + 1)
    assert status(drill) == "active"


def test_a_withdrawn_one_changes_no_deadline(drill: Drill) -> None:
    drill.announce(HOUR, DAY)
    at(drill, HOUR - 60)
    drill.acquire()
    drill.withdraw(HOUR)
    drill.withdraw(HOUR)  # whose answer was lost
    drill.restart(after_seconds=0)
    at(drill, HOUR + 59)
    assert status(drill) == "active"
    at(drill, HOUR + 60)
    assert status(drill) == "lapsed"
    shown = drill.read(drill.queries.maintenance())
    assert shown == {"open": None, "next": None, "windows": []}


def test_one_that_has_begun_is_neither_moved_nor_withdrawn_but_ended(drill: Drill) -> None:
    drill.announce(HOUR, DAY)
    drill.acquire(ttl_seconds=2 * HOUR)
    at(drill, HOUR)
    for answer in (drill.withdraw(HOUR), drill.announce(2 * HOUR, DAY, instead_of=HOUR)):
        assert refused(answer) == "invalid"
        assert "has begun" in answer.detail
    at(drill, 5 * HOUR)
    drill.maintain(0)
    assert told(drill) == {"open": None, "next": None}
    at(drill, 7 * HOUR - 1)
    assert status(drill) == "active", "its whole ttl from the end on"
    at(drill, 7 * HOUR)
    assert status(drill) == "lapsed"


@pytest.mark.parametrize(
    ("begin", "until", "field"),
    [
        (0.0, HOUR, "starts_at"),
        (-HOUR, HOUR, "starts_at"),
        (1000 * DAY, 1001 * DAY, "starts_at"),
        (HOUR, HOUR, "until_at"),
        (HOUR, 60.0, "until_at"),
        (HOUR, 100 * DAY, "until_at"),
    ],
)
def test_what_cannot_be_announced_is_refused_and_changes_nothing(
    drill: Drill, begin: float, until: float, field: str
) -> None:
    answer = drill.announce(begin, until)
    assert (refused(answer), answer.field) == ("invalid", field)
    for answer in (drill.withdraw(HOUR), drill.announce(HOUR, DAY, instead_of=5.0)):
        assert refused(answer) == "not-found"
        assert "no window is announced from" in answer.detail
    assert list(drill.store.maintenance()) == []
    assert drill.read(drill.queries.audit_entries(None, 0, 10))["deeds"] == []


def test_one_that_begins_within_another_is_ended_with_it(drill: Drill) -> None:
    drill.announce(HOUR, 3 * DAY, reason="planned")
    drill.maintain(DAY, "an emergency")
    drill.acquire()
    at(drill, 2 * HOUR)
    shown = drill.read(drill.queries.maintenance())
    assert shown["open"]["reason"] == "planned", "the one that lasts longer"
    drill.maintain(0)
    assert told(drill) == {"open": None, "next": None}
    at(drill, 2 * HOUR + TTL)
    assert status(drill) == "lapsed"


def test_a_lease_is_kept_from_one_window_over_a_downtime_into_the_next(drill: Drill) -> None:
    drill.acquire()
    drill.maintain(HOUR)
    drill.announce(20 * DAY, 21 * DAY)
    at(drill, HOUR + 60)
    # Down for longer than any ttl: what the window kept alive has to be known that much later.
    drill.restart(after_seconds=20 * DAY - HOUR - 120)
    at(drill, 21 * DAY + TTL - 1)
    assert status(drill) == "active"


def test_who_ends_what_is_not_open_ends_nothing_that_is_to_come(drill: Drill) -> None:
    drill.announce(HOUR, DAY)
    drill.maintain(0)
    assert told(drill) == {"open": None, "next": True}
    assert len(list(drill.store.maintenance())) == 1


def test_counts_of_a_workflow_know_of_the_begin(drill: Drill) -> None:
    drill.announce(HOUR, DAY)
    drill.acquire(SubjobKey("run7", "early"))
    at(drill, HOUR - 60)
    drill.acquire(SubjobKey("run7", "late"))
    at(drill, DAY)
    found = drill.read(drill.queries.workflow("run7", "", 10))
    assert found["counts"] == {"active": 1, "lapsed": 1}


def test_what_the_store_refused_was_not_announced(refusing: Drill) -> None:
    refusing.announce(HOUR, DAY)
    refusing.store.is_full = True
    for answer in (
        refusing.announce(2 * HOUR, 2 * DAY, instead_of=HOUR),
        refusing.withdraw(HOUR),
    ):
        assert refused(answer) == "overloaded"
    refusing.store.is_full = False
    (window,) = refusing.read(refusing.queries.maintenance())["windows"]
    assert window["is_announced"]
    at(refusing, HOUR - 60)
    refusing.acquire()
    at(refusing, DAY)
    assert status(refusing) == "active"


def test_who_announced_moved_and_withdrew_is_kept(drill: Drill) -> None:
    drill.announce(HOUR, DAY, reason="a disk")
    drill.announce(2 * HOUR, DAY, instead_of=HOUR)
    drill.withdraw(2 * HOUR)
    deeds = drill.read(drill.queries.audit_entries(None, 0, 10))["deeds"]
    assert [deed["deed"] for deed in deeds] == [
        *["announce-maintenance"] * 2,
        "withdraw-maintenance",
    ]
    assert deeds[0]["reason"] == "a disk"
    assert deeds[1]["instead_of"] == deeds[0]["starts_at"]
    assert deeds[2]["starts_at"] == deeds[1]["starts_at"]
