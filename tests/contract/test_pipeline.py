"""The batch that is open and the one that is written: who is told what when the store is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.answers import AtOnce
from tests.contract.drill import KEY, Drill, acquire, nonce, refused

from htlease.rules import messages as m
from htlease_server.engine.batch import QueueFull
from htlease_server.store.base import CommitOutcomeUnknown, Displaced, StoreFailed, WriteSet

UNKNOWN = "it is not known whether it was done"


class Failing:
    """A real store whose writes, and whose place, fail as a test says."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.write_fails: Exception | None = None
        self.is_gone = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def write(self, write_set: WriteSet) -> None:
        if self.write_fails is not None:
            raise self.write_fails
        self._store.write(write_set)

    def check_in_place(self) -> None:
        if self.is_gone:
            raise Displaced("store x was removed under the server that uses it")


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Drill]:
    drill = Drill(AtOnce(), tmp_path, Failing)
    drill.acquire()
    yield drill
    drill.store.write_fails = None
    if drill.store_writer.displaced is None:
        drill.close()


def test_nothing_is_answered_from_memory_once_the_store_is_gone(drill: Drill) -> None:
    assert drill.ask(m.Renew(1, nonce(1))) == m.Renewal(120, "continue")
    drill.store.is_gone = True
    for answer in drill.ask_all(drill.pending(m.Renew(1, nonce(1))), drill.pending(acquire(2))):
        assert refused(answer) == "outcome-unknown" and "was removed under" in answer.detail
    assert not drill.store_writer.is_alive and drill.store_writer.queued == 0
    with pytest.raises(QueueFull, match="was removed under"):
        drill.store_writer.submit(drill.pending(m.Renew(1, nonce(1))))
    assert str(drill.store_writer.failure) == str(drill.store_writer.displaced)


def test_whoever_waits_for_the_disk_is_told_too(drill: Drill) -> None:
    drill.store.write_fails = Displaced("store x: another server has started on it")
    entering, renewing = drill.pending(m.Enter(1, nonce(1), "run")), drill.pending(acquire(2))
    for answer in drill.ask_all(entering, renewing):
        assert refused(answer) == "outcome-unknown" and "another server" in answer.detail
    assert isinstance(drill.store_writer.displaced, Displaced)
    with pytest.raises(QueueFull, match="another server"):
        drill.ask(m.Renew(1, nonce(1)))


def test_an_idle_server_notices(drill: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    drill.store.is_gone = True
    deadline = drill._loop.time() + 20

    async def until_noticed() -> None:
        while drill.store_writer.is_alive:
            assert drill._loop.time() < deadline, "nobody looks"
            await asyncio.sleep(0.01)

    drill._loop.run_until_complete(until_noticed())
    assert drill.store_writer.commits.failed == 1


def test_a_server_that_stops_on_a_lost_store_writes_no_last_turn(drill: Drill) -> None:
    drill.ask(m.Renew(1, nonce(1)))
    drill.store_writer.submit(drill.pending(m.Enter(1, nonce(1), "run")))
    drill.store.is_gone = True
    written: list[WriteSet] = []
    drill.store.write = written.append
    drill.stop()
    assert written == []


def test_a_server_that_stops_answers_and_writes_what_is_there(drill: Drill) -> None:
    drill.ask(m.Renew(1, nonce(1)))
    pending = drill.pending(m.Enter(1, nonce(1), "run"))
    drill.store_writer.submit(pending)
    drill.now += 1
    drill.stop()
    assert isinstance(pending.future.result(), m.PhaseRecord)  # type: ignore[attr-defined]
    drill.start()
    assert drill.state().current_phase == "run"
    runs = drill.store._db.execute("SELECT alive_at FROM server_run ORDER BY 1").fetchall()
    assert (drill.now,) in runs


@pytest.mark.parametrize(
    ("failure", "code", "detail"),
    [
        (StoreFailed("full"), "overloaded", "nothing was changed: full; send it again"),
        (CommitOutcomeUnknown("io"), "outcome-unknown", f"{UNKNOWN}: io; send it again under the same request ID"),
    ],
)  # fmt: skip
def test_what_the_store_refused_is_undone_and_said(
    drill: Drill, failure: Exception, code: str, detail: str
) -> None:
    drill.store.write_fails = failure
    answer = drill.ask(m.Enter(1, nonce(1), "run"), request_id="e-1")
    assert (answer.code, answer.detail, answer.retry_after_seconds) == (code, detail, 2.0)
    assert drill.store_writer.failure == str(failure)
    assert drill.ask(m.Renew(1, nonce(1))) == m.Renewal(120, "continue"), "that goes on"
    drill.store.write_fails = None
    entered = drill.ask(m.Enter(1, nonce(1), "run"), request_id="e-1")
    assert entered.entries == 1 and drill.store_writer.failure is None
    assert [row.event for row in drill.history()].count("phase-entered") == 1


def test_a_mistake_in_preparing_a_batch_is_no_ones_end(
    drill: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(batch: object) -> bool:
        raise ZeroDivisionError("ours")

    with monkeypatch.context() as patch:
        patch.setattr(drill.states, "prepare", broken)
        answer = drill.ask(m.Enter(1, nonce(1), "run"))
        assert refused(answer) == "overloaded" and "ZeroDivisionError('ours')" in answer.detail
    assert isinstance(drill.ask(m.Enter(1, nonce(1), "run")), m.PhaseRecord)


def test_a_writer_that_has_ended_ends_the_server(drill: Drill) -> None:
    drill.store_writer._writer.is_alive = False  # type: ignore[attr-defined]
    assert not drill.store_writer.is_alive
    with pytest.raises(QueueFull, match="the process that writes the store has ended"):
        drill.store_writer.submit(drill.pending(acquire(2)))
    drill.store_writer._writer.is_alive = True  # type: ignore[attr-defined]
    assert drill.state(KEY).fence == 1
