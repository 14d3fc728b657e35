"""Whoever asks for a subjob that lies on a slow disk waits alone, and keeps the order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.drill import Drill, acquire, nonce, refused
from tests.contract.stores import SqliteKind, WriterAtOnce

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease_server.engine.batch import PendingRequest, QueueFull
from htlease_server.engine.commit import prefetch as module
from htlease_server.engine.commit.group_commit import GroupCommitWriter
from htlease_server.engine.commit.prefetch import PARKED_SECONDS, Prefetcher
from htlease_server.engine.commit.priority_queue import PriorityQueue
from htlease_server.engine.commit.store_writer import StoreWriter
from htlease_server.engine.states.memory_states import InMemoryStates
from htlease_server.store.base import Reader, SubjobRow

COLD, FIRST, OTHER = (SubjobKey("w", name) for name in ("cold", "first", "other"))


class SlowDisk:
    """A store whose reads in other threads wait until the test lets them go on."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.may_read = threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def reader(self) -> Reader:
        reader: Any = self._store.reader()
        look_up = reader.subjob

        def subjob(key: SubjobKey) -> SubjobRow | None:
            if threading.current_thread() is not threading.main_thread():
                assert self.may_read.wait(30), "the test has forgotten this thread"
            row: SubjobRow | None = look_up(key)
            return row

        reader.subjob = subjob
        return reader  # type: ignore[no-any-return]


class SlowKind(SqliteKind):
    """Servers that look at their disk through the test."""

    def __init__(self) -> None:
        #: What a thread has read from the disk so far.
        self.blocks = 0
        self.seconds = 1e6

    def store_writer(
        self, store: Any, clock: Callable[[], float], queue: PriorityQueue, **limits: Any
    ) -> StoreWriter:
        states = InMemoryStates(store, clock, **limits)
        prefetcher = Prefetcher(states.reader, lambda: self.seconds, lambda: self.blocks)
        return GroupCommitWriter(states, clock, queue, WriterAtOnce(store), prefetcher)


@pytest.fixture
def disk() -> SlowKind:
    return SlowKind()


@pytest.fixture
def drill(disk: SlowKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drill]:
    """A server that has just started over three subjobs, to which every look-up is slow."""
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.0)
    drill = Drill(disk, tmp_path, SlowDisk)
    for key in (COLD, FIRST, OTHER):
        drill.acquire(key)
        drill.ask(m.Abandon(1, nonce(1)), key)
    drill.restart(after_seconds=1)
    yield drill
    drill.store.may_read.set()
    drill.close()


def read_the_disk(drill: Drill, disk: SlowKind, key: SubjobKey = FIRST) -> None:
    """Have a look-up in the event loop that reads from the disk."""
    disk.blocks += 8
    drill.acquire(key, number=2)


def answer_of(pending: PendingRequest) -> Any:
    future: Any = pending.future
    return future.result() if future.done() else None


def test_others_are_answered_while_one_waits_for_the_disk(drill: Drill, disk: SlowKind) -> None:
    read_the_disk(drill, disk)
    slow = drill.pending(acquire(2), COLD)
    drill.store_writer.submit(slow)
    for _ in range(3):
        assert drill.ask(m.Renew(2, nonce(2)), FIRST).order == "continue"
    assert drill.ask(m.Enter(2, nonce(2), "run"), FIRST).entries == 1
    assert answer_of(slow) is None and drill.store_writer.queued == 1
    drill.store.may_read.set()
    assert drill.ask_all(drill.pending(m.Renew(2, nonce(2)), FIRST), slow)[1].fence == 2
    assert drill.store_writer.queued == 0


def test_requests_for_one_subjob_keep_their_order(drill: Drill, disk: SlowKind) -> None:
    starts = [drill.pending(acquire(number), COLD) for number in (2, 3, 4)]
    drill.store_writer.submit(starts[0])  # before the disk was slow
    read_the_disk(drill, disk)
    assert answer_of(starts[0]).fence == 2
    drill.ask(m.Abandon(2, nonce(2)), COLD)
    drill.states.cache.forget(COLD)
    drill.store_writer.submit(starts[1])
    # In memory again, whoever had it read; who comes now has to come after who waits.
    assert drill.states.entry(COLD, drill.now) is not None
    drill.store_writer.submit(starts[2])
    drill.ask(m.Renew(2, nonce(2)), FIRST)
    assert drill.store_writer.queued == 2 and answer_of(starts[2]) is None
    drill.store.may_read.set()
    drill.ask_all(drill.pending(m.Renew(2, nonce(2)), FIRST))
    third, fourth = await_all(drill, *starts[1:])
    assert third.fence == 3 and refused(fourth) == "lease-still-live"


def await_all(drill: Drill, *requests: PendingRequest) -> list[Any]:
    """Return the answers of requests that are queued already."""

    async def answers() -> list[Any]:
        return [await pending.future for pending in requests]  # type: ignore[misc]

    return drill.read(answers())  # type: ignore[no-any-return]


def test_who_stands_aside_keeps_a_place_in_the_queue(drill: Drill, disk: SlowKind) -> None:
    drill.restart(after_seconds=1, queue=PriorityQueue(renewals_max=1, writes_max=2))
    drill.store.may_read.set()
    read_the_disk(drill, disk)
    starts = [drill.pending(acquire(2), key) for key in (COLD, OTHER, COLD)]
    for pending in starts[:2]:
        drill.store_writer.submit(pending)
    with pytest.raises(QueueFull):
        drill.store_writer.submit(starts[2])
    assert drill.store_writer.refused["new-work"] == 1
    assert drill.ask(m.Renew(2, nonce(2)), FIRST).order == "continue"
    assert [answer.fence for answer in await_all(drill, *starts[:2])] == [2, 2]
    assert drill.acquire(SubjobKey("w", "new")).fence == 1


def test_who_stands_aside_when_the_server_stops_is_answered(drill: Drill, disk: SlowKind) -> None:
    read_the_disk(drill, disk)
    starts = [drill.pending(acquire(number), COLD) for number in (2, 3)]
    for pending in starts:
        drill.store_writer.submit(pending)
    assert drill.store_writer.queued == 2
    drill.store.may_read.set()
    drill.stop()
    assert answer_of(starts[0]).fence == 2 and refused(answer_of(starts[1])) == "lease-still-live"
    drill.start()


def test_nobody_stands_aside_where_the_disk_is_not_read(drill: Drill, disk: SlowKind) -> None:
    disk.blocks += 8
    drill.acquire(FIRST, number=2)
    disk.seconds += PARKED_SECONDS  # that was long ago
    assert drill.acquire(COLD, number=2).fence == 2  # slow, but for another reason
    assert drill.acquire(OTHER, number=2).fence == 2


def test_renewals_do_not_stand_aside_for_what_others_found(drill: Drill, disk: SlowKind) -> None:
    read_the_disk(drill, disk)
    assert refused(drill.ask(m.Renew(1, nonce(1)), COLD)) == "superseded-attempt"
    disk.blocks += 8
    drill.ask(m.Renew(1, nonce(1)), OTHER)  # one that did find the disk slow
    drill.states.cache.forget(COLD)
    late = drill.pending(m.Renew(1, nonce(1)), COLD)
    drill.store_writer.submit(late)
    drill.ask(m.Renew(2, nonce(2)), FIRST)
    assert answer_of(late) is None and drill.store_writer.queued == 1
    drill.store.may_read.set()
    await_all(drill, late)
