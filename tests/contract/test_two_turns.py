"""The batch that fills while another is written, with a disk that is done when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.contract.drill import KEY, Drill, acquire, nonce, refused
from tests.contract.stores import SqliteKind

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease_server.engine.batch import Crashed, PendingRequest, QueueFull
from htlease_server.engine.commit import group_commit as module
from htlease_server.engine.commit.group_commit import GroupCommitWriter
from htlease_server.engine.commit.priority_queue import PriorityQueue
from htlease_server.engine.commit.store_writer import StoreWriter
from htlease_server.engine.states.memory_states import InMemoryStates
from htlease_server.store.base import CommitOutcomeUnknown, Displaced, StoreFailed, WriteSet
from htlease_server.store.sqlite.writer_process import CommitResult


class Held:
    """A writer that is done with a batch when it is told to be."""

    is_alive = True

    def __init__(self, store: Any) -> None:
        self._store = store
        self.batches: list[WriteSet] = []
        self.is_holding = False
        self.fails_with: StoreFailed | None = None
        self.held: WriteSet | None = None

    def start(
        self, loop: asyncio.AbstractEventLoop, on_written: Callable[[CommitResult], None]
    ) -> None:
        self._loop, self._on_written = loop, on_written

    def put(self, write_set: WriteSet) -> None:
        assert self.held is None, "one at a time"
        self.held = write_set
        self.batches.append(write_set)
        if not self.is_holding and not self._loop.is_closed():
            self._loop.call_soon(self.release)

    def wait(self) -> CommitResult:
        assert self.held is not None
        write_set, self.held = self.held, None
        if self.fails_with is None:
            self._store.write(write_set)
        return CommitResult(self.fails_with, 2.5)

    def release(self) -> None:
        if self.held is not None:
            self._on_written(self.wait())

    def close(self) -> None:
        self.is_alive = False


class HeldKind(SqliteKind):
    """A server whose disk is in the hands of the test."""

    def store_writer(
        self, store: Any, clock: Callable[[], float], queue: PriorityQueue, **limits: Any
    ) -> StoreWriter:
        self.writer = Held(store)
        return GroupCommitWriter(InMemoryStates(store, clock, **limits), clock, queue, self.writer)


class Site:
    """A subjob that is held, and a disk that holds the next batch back."""

    def __init__(self, folder: Path) -> None:
        kind = HeldKind()
        self.drill = Drill(kind, folder)
        assert isinstance(self.drill.states, InMemoryStates)
        self.states = self.drill.states
        self.writer = kind.writer
        self.drill.acquire()
        self.writer.batches.clear()
        self.writer.is_holding = True

    def submit(self, *commands: m.Command) -> list[PendingRequest]:
        """Ask, and let the server do what it can while the disk is busy."""
        requests = [self.drill.pending(command) for command in commands]
        for pending in requests:
            self.drill.store_writer.submit(pending)
        self.turn_round()
        return requests

    def turn_round(self) -> None:
        async def some_rounds() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        self.drill.read(some_rounds())

    def release(self, *, hold_next: bool = False) -> None:
        """Let the disk be done; what is written next is held again, or not."""
        self.writer.is_holding = hold_next
        self.writer.release()
        self.turn_round()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.writer.fails_with = None
    if site.drill.store_writer.displaced is None and site.drill.store_writer.is_alive:
        site.release()
        site.drill.close()


def answer_of(pending: PendingRequest) -> Any:
    future = cast("asyncio.Future[Any]", pending.future)
    return future.result() if future.done() else None


def enter(phase: str = "run") -> m.Enter:
    return m.Enter(1, nonce(1), phase)


def details(number: int) -> m.Renew:
    return m.Renew(1, nonce(1), f"details {number}")


def test_the_next_turn_fills_meanwhile_and_is_written_as_one(site: Site) -> None:
    (first,) = site.submit(enter())
    second, third = site.submit(details(1), m.Complete(1, nonce(1), "run"))
    assert [answer_of(one) for one in (first, second, third)] == [None] * 3
    assert len(site.writer.batches) == 1
    site.release(hold_next=True)
    assert isinstance(answer_of(first), m.PhaseRecord)
    assert answer_of(second) is None and answer_of(third) is None, "theirs is not on the disk"
    assert [len(write_set.history) for write_set in site.writer.batches] == [1, 2]
    site.release()
    assert answer_of(second).order == "continue" and answer_of(third).completed_fence == 1
    assert site.writer.held is None and len(site.writer.batches) == 2
    names = [row.event for row in site.drill.history()]
    assert names[-3:] == ["phase-entered", "details-saved", "phase-completed"]


def test_what_promises_nothing_new_of_the_disk_does_not_wait_for_it(site: Site) -> None:
    other = SubjobKey("run7", "nobody")
    (entering,) = site.submit(enter())
    stranger = site.drill.pending(m.Renew(1, nonce(1)), other)
    site.drill.store_writer.submit(stranger)
    site.turn_round()
    assert refused(answer_of(stranger)) == "unknown-subjob" and answer_of(entering) is None
    assert site.drill.store_writer.queued == 0


def test_a_mistake_of_ours_is_told_at_once_and_hurts_nobody_else(site: Site) -> None:
    (entering,) = site.submit(enter())
    broken = site.drill.pending(details(1))
    broken.key = None
    site.drill.store_writer.submit(broken)
    site.turn_round()
    assert answer_of(broken) == Crashed() and answer_of(entering) is None
    site.release()
    assert answer_of(entering).entries == 1


def test_a_turn_takes_so_many_requests_and_leaves_the_others_in_the_queue(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_MAX", 4)
    site.submit(enter())
    requests = site.submit(*(details(number) for number in range(10)))
    assert site.drill.store_writer.queued == 6
    site.release(hold_next=True)
    assert [one for one in requests if answer_of(one)] == [] and site.drill.store_writer.queued == 2
    site.release()
    assert all(answer_of(one).order == "continue" for one in requests)
    assert [len(write_set.history) for write_set in site.writer.batches] == [1, 4, 4, 2]
    assert site.drill.store_writer.queued == 0
    assert [row.event for row in site.drill.history()][-10:] == ["details-saved"] * 10


@pytest.mark.parametrize(
    ("problem", "code"),
    [(StoreFailed("full"), "overloaded"), (CommitOutcomeUnknown("io"), "outcome-unknown")],
)
def test_what_was_decided_on_top_of_a_lost_turn_is_undone_with_it(
    site: Site, problem: StoreFailed, code: str
) -> None:
    entry = site.drill.states.cache.get(KEY)
    assert entry is not None
    before = entry.state
    first = site.submit(enter())
    above = site.submit(details(1), m.Complete(1, nonce(1), "run"))
    site.writer.fails_with = problem
    site.release()
    assert [refused(answer_of(one)) for one in (*first, *above)] == [code] * 3
    assert entry.state == before and entry.unwritten == 0
    assert site.drill.store_writer.commits.failed == 1 and site.drill.store_writer.failure == str(
        problem
    )
    assert site.drill.store_writer.displaced is None and site.drill.store_writer.is_alive
    site.writer.fails_with = None
    (again,) = site.submit(enter())
    assert answer_of(again).entries == 1 and site.drill.store_writer.failure is None


def test_a_store_lost_while_it_is_written_ends_both_turns(site: Site) -> None:
    first, above = site.submit(enter()), site.submit(details(1))
    site.writer.fails_with = Displaced("store x: another server has started on it")
    site.release()
    for one in (*first, *above):
        assert refused(answer_of(one)) == "outcome-unknown"
        assert "another server" in answer_of(one).detail
    assert site.drill.store_writer.displaced is site.writer.fails_with
    assert site.writer.held is None and len(site.writer.batches) == 1
    with pytest.raises(QueueFull, match="another server"):
        site.drill.store_writer.submit(site.drill.pending(enter()))


def test_how_many_were_written_in_how_much_time_is_counted(site: Site) -> None:
    tally = site.drill.store_writer.commits
    written: list[tuple[int, float]] = []
    tally.wrote = lambda requests, seconds: written.append((requests, seconds))  # type: ignore[method-assign]
    site.submit(enter())
    site.submit(details(1), details(2))
    site.release()
    assert written == [(1, 2.5), (2, 2.5)]


def test_who_waits_when_the_server_stops_is_answered(site: Site) -> None:
    (first,) = site.submit(enter())
    second = site.drill.pending(details(1))
    site.drill.store_writer.submit(second)
    site.drill.now += 1
    site.drill.stop()
    assert isinstance(answer_of(first), m.PhaseRecord)
    assert answer_of(second).order == "continue"
    last = site.writer.batches[-1]
    assert last.alive is not None and last.alive.alive_at == site.drill.now
    assert all(write_set.alive is None for write_set in site.writer.batches[:-2])
    assert not site.writer.is_alive and site.writer.held is None


def test_a_writer_that_ends_with_nothing_to_do_is_a_failure(site: Site) -> None:
    store_writer = site.drill.store_writer
    assert isinstance(store_writer, GroupCommitWriter)
    store_writer._on_written(CommitResult(None, 0.0))
    assert store_writer.failure is None and store_writer.commits.failed == 0
    store_writer._on_written(CommitResult(CommitOutcomeUnknown("the process has ended"), 0.0))
    assert store_writer.failure == "the process has ended" and store_writer.commits.failed == 1


def test_an_idle_server_signs_of_life_again_and_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.01)
    site.writer.is_holding = False
    deadline = site.drill._loop.time() + 20

    async def until_signed() -> None:
        while site.writer.batches == []:
            assert site.drill._loop.time() < deadline, "nobody signs"
            await asyncio.sleep(0.01)

    for _ in range(3):
        site.drill.now += 10
        site.drill.read(until_signed())
        assert site.writer.batches.pop().alive == (site.states.started_at, site.drill.now)


def test_many_that_come_at_once_wake_the_server_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.writer.is_holding = False
    turns: list[float] = []
    begin = site.states.open

    def counted() -> Any:
        turns.append(site.drill.now)
        return begin()

    monkeypatch.setattr(site.states, "open", counted)
    requests = site.submit(*(details(number) for number in range(5)), acquire(2))
    assert all(answer_of(one) for one in requests)
    assert len(site.writer.batches) == 1 and len(turns) == 1


def test_a_server_that_was_never_started_writes_nothing(tmp_path: Path) -> None:
    kind = HeldKind()
    store = kind.open(tmp_path)
    store_writer = kind.store_writer(store, lambda: 1.0, PriorityQueue())
    store_writer.stop()
    assert kind.writer.batches == [] and not kind.writer.is_alive


def test_who_stands_aside_is_read_for_by_a_connection_of_its_own(site: Site) -> None:
    store_writer = site.drill.store_writer
    made: list[Any] = []
    assert isinstance(store_writer, GroupCommitWriter)
    make = site.drill.store.reader

    def counted() -> Any:
        made.append(make())
        return made[-1]

    site.drill.store.reader = counted
    back: list[list[PendingRequest]] = []
    store_writer._prefetcher.prefetch(site.drill.pending(enter()), site.drill._loop, back.append)

    async def until_back() -> None:
        while not back:
            await asyncio.sleep(0.01)

    site.drill.read(asyncio.wait_for(until_back(), 20))
    assert len(made) == 1
