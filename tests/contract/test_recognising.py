"""Requests that come again are recognised, by marks beside the state and seldom by the history."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.contract.drill import Drill, acquire, nonce, refused
from tests.contract.stores import STORES, StoreKind, only_exclusive

from htlease.rules import messages as m
from htlease.rules.state import REQUESTS_KEPT
from htlease_server.engine.history import fingerprint_of, snapshot_from, snapshot_of
from htlease_server.store.base import Reader


class CountingStore:
    """A real store that counts how often its history is asked for requests."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.looks = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def reader(self) -> Reader:
        reader: Any = self._store.reader()
        ask = reader.requests

        def requests(subjob_id: int, limit: int) -> Sequence[tuple[str, bytes]]:
            self.looks += 1
            found: Sequence[tuple[str, bytes]] = ask(subjob_id, limit)
            return found

        reader.requests = requests
        return reader  # type: ignore[no-any-return]


def counting(tmp_path: Path) -> Drill:
    return Drill(STORES["sqlite"], tmp_path, CountingStore)


def save(drill: Drill, number: int) -> object:
    """Have a request accepted, or recognised, that changes nothing else."""
    return drill.ask(m.Renew(1, nonce(1), f"details {number}"), request_id=f"r-{number}")


def is_recognised(drill: Drill, number: int) -> bool:
    """Ask whether a request ID is taken; a refused body changes nothing."""
    answer = drill.ask(m.Abandon(9, nonce(9)), request_id=f"r-{number}")
    return refused(answer) == "request-id-reused"


def test_another_start_after_long_reads_nothing_of_the_history(tmp_path: Path) -> None:
    drill = counting(tmp_path)
    drill.acquire()
    drill.ask(m.Enter(1, nonce(1), "run"), request_id="enter")
    drill.ask(m.Abandon(1, nonce(1)))
    drill.restart(after_seconds=1e6)
    assert drill.acquire(number=2).fence == 2
    drill.ask(m.Enter(2, nonce(2), "run"))
    assert drill.store.looks == 0
    assert refused(drill.ask(m.Exited(2, nonce(2), 0), request_id="enter")) == "request-id-reused"
    assert drill.store.looks == 1
    assert refused(drill.ask(m.Exited(2, nonce(2), 0), request_id="enter")) == "request-id-reused"
    assert drill.store.looks == 1
    drill.close()


@only_exclusive
def test_as_many_requests_are_recognised_after_a_restart_as_before(
    drill: Drill, kind: StoreKind
) -> None:
    drill.acquire()
    for number in range(REQUESTS_KEPT):
        save(drill, number)
    for number in range(REQUESTS_KEPT, REQUESTS_KEPT + 10):  # each seen by another server
        drill.restart(after_seconds=1)
        save(drill, number)
    drill.restart(after_seconds=1)
    assert [is_recognised(drill, number) for number in (8, 9)] == [False, False]
    for number in (10, REQUESTS_KEPT - 1, REQUESTS_KEPT + 9):
        drill.restart(after_seconds=1)
        before = drill.history()
        assert is_recognised(drill, number)
        assert save(drill, number) == m.Renewal(120.0, "continue")
        assert drill.history() == before


@only_exclusive
def test_requests_that_a_store_has_refused_drive_no_others_out(
    refusing: Drill, kind: StoreKind
) -> None:
    refusing.acquire()
    for number in range(REQUESTS_KEPT):
        save(refusing, number)
    refusing.restart(after_seconds=1)
    refusing.store.is_full = True
    for number in range(100, 103):
        answer = save(refusing, number)
        assert isinstance(answer, m.Rejection) and answer.code == "overloaded"
    refusing.store.is_full = False
    assert not is_recognised(refusing, 100)
    save(refusing, 200)
    refusing.restart(after_seconds=1)
    assert [is_recognised(refusing, number) for number in (0, 1, 2, 3)] == [False, True, True, True]


def test_a_store_of_before_is_asked_for_its_history_once(tmp_path: Path) -> None:
    drill = counting(tmp_path)
    drill.acquire()
    save(drill, 1)
    drill.stop()
    with sqlite3.connect(tmp_path / "store.sqlite3") as db:
        ((snapshot, at),) = db.execute(
            "SELECT snapshot, deadline_at FROM subjob JOIN lease ON subjob_id = id"
        )
        db.execute("UPDATE subjob SET snapshot = ?", (snapshot_of(snapshot_from(snapshot, at)[0]),))
        db.executescript("DROP TABLE store_place; PRAGMA user_version = 8;")
    db.close()
    drill.start()
    save(drill, 2)
    assert is_recognised(drill, 1) and is_recognised(drill, 2)
    assert drill.store.looks == 1
    drill.restart(after_seconds=1)
    save(drill, 3)
    assert drill.store.looks == 0
    assert is_recognised(drill, 1)
    drill.close()


def test_two_requests_of_the_same_mark_are_told_from_each_other(tmp_path: Path) -> None:
    one, other = "plumless", "buckeroo"
    assert fingerprint_of(one) == fingerprint_of(other)
    drill = counting(tmp_path)
    drill.acquire()
    drill.ask(m.Enter(1, nonce(1), "run"), request_id=one)
    drill.restart(after_seconds=1)
    assert drill.ask(m.Complete(1, nonce(1), "run"), request_id=other).completed_fence == 1
    assert drill.store.looks == 1
    assert refused(drill.ask(acquire(), request_id=one)) == "request-id-reused"
    drill.close()
