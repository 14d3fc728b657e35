"""The thread that takes batches over a store that others write to: who is told what, and when."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease_server.engine.batch import Batch, PendingRequest
from htlease_server.engine.commit import shared_commit as module
from htlease_server.engine.commit.priority_queue import PriorityQueue
from htlease_server.engine.commit.shared_commit import SharedStoreWriter
from htlease_server.engine.commit.store_writer import BATCH_MAX
from htlease_server.engine.site.audit import MINT, AuditEntry
from htlease_server.engine.states.cache import SubjobCache
from htlease_server.models.request_models import CommandRequest
from htlease_server.store.base import CommitOutcomeUnknown, Conflict, StoreFailed, Unstorable

NONCE = "nonce-of-a-test-0123456789"


class StateSource:
    """Keeps nothing, and fails as it is told; `log` has what it was asked."""

    name = "store x"

    def __init__(self) -> None:
        self.cache = SubjobCache()
        self.log: list[tuple[Any, ...]] = []
        self.fails_with: Iterator[Exception | None] = itertools.repeat(None)
        self.is_closed = False
        self.flags: dict[str, Any] = {}
        self.deleting: set[SubjobKey] = set()
        self.fence_floor = 0

    def open(self, requests: Sequence[PendingRequest], is_last: bool) -> Batch:
        if requests or is_last:
            self.log.append(("open", len(requests), is_last))
        return Batch(1.0, is_last, is_all_after_commit=True)

    def commit(self, batch: Batch) -> bool:
        if not batch.after_commit:
            return False
        failure = next(self.fails_with)
        if failure is not None:
            raise failure
        self.log.append(("commit", len(batch.after_commit)))
        return True

    def undo(self, batch: Batch) -> None:
        self.log.append(("undo",))

    def entry(self, key: SubjobKey, now: float) -> None:
        return None

    def close(self) -> None:
        self.is_closed = True


class Site:
    """A writer in a loop of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.states = StateSource()
        self.store_writer = SharedStoreWriter(cast(Any, self.states), lambda: 1.0, PriorityQueue())

    def deeds(self, count: int = 1) -> list[PendingRequest]:
        return [
            PendingRequest(None, AuditEntry(MINT, f"w{number}"), "admin", self.loop.create_future())
            for number in range(count)
        ]

    def renewal(self) -> PendingRequest:
        sent = CommandRequest(m.Renew(1, NONCE), "r", None, b"")
        return PendingRequest(SubjobKey("w", "s"), sent, "admin", self.loop.create_future())

    def answers(self, waitings: list[PendingRequest]) -> list[Any]:
        for pending in waitings:
            self.store_writer.submit(pending)
        futures = [cast("asyncio.Future[Any]", pending.future) for pending in waitings]

        async def all_of_them() -> list[Any]:
            return await asyncio.wait_for(asyncio.gather(*futures), 30)

        return self.loop.run_until_complete(all_of_them())

    def told(self, waitings: list[PendingRequest]) -> list[str]:
        return [
            one.code if isinstance(one, m.Rejection) else type(one).__name__
            for one in self.answers(waitings)
        ]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    set_to: list[float] = []
    monkeypatch.setattr("sys.setswitchinterval", set_to.append)
    site = Site()
    site.store_writer.start(site.loop)
    assert set_to == [0.05]
    yield site
    if site.store_writer.is_alive:
        site.store_writer.stop()
    site.loop.close()


def test_what_is_queued_together_is_one_turn(site: Site) -> None:
    assert site.told(site.deeds(5)) == ["AuditRow"] * 5
    assert site.states.log == [("open", 5, False), ("commit", 5)]
    assert site.store_writer.queued == 0 and site.store_writer.failure is None


def test_renewals_have_a_turn_of_their_own_before_the_others(site: Site) -> None:
    deed, *others = site.deeds(3)
    told = site.told([deed, site.renewal(), *others])
    assert told == ["AuditRow", "unknown-subjob", "AuditRow", "AuditRow"]
    opened = [entry for entry in site.states.log if entry[0] == "open"]
    assert opened == [("open", 1, False), ("open", 3, False)]


def test_renewals_alone_are_one_turn(site: Site) -> None:
    assert site.told([site.renewal(), site.renewal()]) == ["unknown-subjob"] * 2
    opened = [entry for entry in site.states.log if entry[0] == "open"]
    assert opened == [("open", 2, False)]


def test_a_turn_has_no_more_than_a_batch(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_MAX", 2)
    assert BATCH_MAX > 2
    site.told(site.deeds(5))
    opened = [entry for entry in site.states.log if entry[0] == "open"]
    assert [entry[1] for entry in opened] == [2, 2, 1]


def test_where_another_server_was_faster_the_turn_is_taken_again(site: Site) -> None:
    failures: list[Exception | None] = [Conflict("faster"), Conflict("faster"), None]
    site.states.fails_with = iter(failures)
    assert site.told(site.deeds()) == ["AuditRow"]
    assert [entry[0] for entry in site.states.log] == [
        *("open", "undo", "open", "undo", "open", "commit")
    ]
    assert site.store_writer.failure is None


def test_not_for_ever(site: Site) -> None:
    site.states.fails_with = itertools.repeat(Conflict("faster"))
    (answer,) = site.answers(site.deeds())
    assert answer.code == "overloaded" and "nothing was changed: faster" in answer.detail
    assert [entry[0] for entry in site.states.log].count("open") == 10
    assert site.store_writer.failure == "faster" and site.store_writer.commits.failed == 1


@pytest.mark.parametrize(
    ("failure", "code", "detail"),
    [
        (StoreFailed("store x: away"), "overloaded", "nothing was changed: store x: away; send it again"),
        (CommitOutcomeUnknown("store x: cut"), "outcome-unknown",
         "it is not known whether it was done: store x: cut; send it again under the same request ID"),
        (ZeroDivisionError("ours"), "overloaded",
         "nothing was changed: the batch could not be written: ZeroDivisionError('ours'); send it again"),
    ],
)  # fmt: skip
def test_what_fails_is_said_to_everybody_in_the_turn_and_the_next_goes_on(
    site: Site, failure: Exception, code: str, detail: str
) -> None:
    failures: list[Exception | None] = [failure, None]
    site.states.fails_with = iter(failures)
    answers = site.answers(site.deeds(2))
    assert {(answer.code, answer.detail, answer.retry_after_seconds) for answer in answers} == {
        (code, detail, 2.0)
    }
    assert site.states.log[-1] == ("undo",)
    assert site.store_writer.failure is not None
    assert site.told(site.deeds(2)) == ["AuditRow"] * 2
    assert site.store_writer.failure is None


def test_of_a_batch_only_the_one_that_cannot_be_stored_is_refused(site: Site) -> None:
    failures: list[Exception | None] = [Unstorable("all"), None, Unstorable("no such text"), None]
    site.states.fails_with = iter(failures)
    answers = site.answers(site.deeds(3))
    told = [getattr(answer, "code", "done") for answer in answers]
    assert told == ["done", "invalid", "done"]
    assert answers[1].detail == "the request cannot be stored: no such text"
    assert site.store_writer.failure is None, "the store is well"


def test_the_last_turn_is_said_to_be_the_last(site: Site) -> None:
    pending = site.deeds(1)[0]
    site.store_writer._queue.add(pending)  # nobody has woken the thread
    site.store_writer.stop()
    assert site.states.log == [("open", 1, False), ("commit", 1), ("open", 0, True)]
    assert site.states.is_closed and not site.store_writer.is_alive
    site.loop.run_until_complete(asyncio.sleep(0))
    assert cast("asyncio.Future[Any]", pending.future).done()


def test_an_answer_after_the_loops_end_is_noted_and_hurts_nobody(site: Site) -> None:
    site.store_writer.submit(site.deeds()[0])
    site.loop.close()
    site.store_writer.stop()
    assert ("open", 0, True) in site.states.log


def test_a_writer_that_never_started_stops() -> None:
    site = Site()
    assert not site.store_writer.is_alive
    site.store_writer.stop()
    site.loop.close()
    assert site.states.is_closed


def test_whoever_has_gone_is_answered_no_more(site: Site) -> None:
    gone, stays = site.deeds(2)
    cast("asyncio.Future[Any]", gone.future).cancel()
    for pending in (gone, stays):
        site.store_writer.submit(pending)

    async def last() -> Any:
        return await asyncio.wait_for(cast("asyncio.Future[Any]", stays.future), 30)

    assert type(site.loop.run_until_complete(last())).__name__ == "AuditRow"
