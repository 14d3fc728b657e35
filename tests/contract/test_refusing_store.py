"""What a server promises while its store refuses, and what it keeps in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contract.drill import PLAN, Drill, acquire, nonce, refused
from tests.contract.stores import StoreKind, only_exclusive

from htlease.rules import acquire as lifecycle
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.state import SubjobState
from htlease_server.engine import execute
from htlease_server.engine.batch import Crashed, QueueFull
from htlease_server.engine.commit.priority_queue import PriorityQueue

# ------------------------------------------------------------ memory


def test_subjobs_that_fell_out_of_memory_come_back_as_they_were(drill: Drill) -> None:
    drill.restart(after_seconds=0, entries_max=3)
    keys = [SubjobKey("many", f"s-{number}") for number in range(20)]
    for key in keys:
        drill.acquire(key)
    drill.now += 100
    for key in keys:  # not on the disk yet when the next one pushes it out of memory
        drill.ask(m.Renew(1, nonce(1)), key)
    drill.now += 100
    for key in keys:
        assert drill.ask(m.Enter(1, nonce(1), "run"), key).entries == 1
        assert refused(drill.ask(acquire(2), key)) == "lease-still-live"
        assert len(drill.states.cache) <= 3


def test_waiting_commands_share_a_commit_and_are_decided_in_order(drill: Drill) -> None:
    drill.acquire(plan=PLAN)
    before = drill.store_writer.commits.seconds.count
    commands: list[m.Command] = []
    for phase in ("fetch", "compute", "push"):
        commands += [m.Enter(1, nonce(1), phase), m.Complete(1, nonce(1), phase)]
    others = [drill.pending(acquire(), SubjobKey("other", f"s-{n}")) for n in range(300)]
    answers = drill.ask_all(*(drill.pending(command) for command in commands), *others)
    assert [answer.completed_fence for answer in answers[1:6:2]] == [1, 1, 1]
    assert all(isinstance(answer, m.Grant) for answer in answers[6:])
    assert drill.store_writer.commits.seconds.count - before < 20


def test_a_full_queue_refuses_at_once(kind: StoreKind, tmp_path: Path) -> None:
    drill = Drill(kind, tmp_path)
    drill.restart(after_seconds=0, queue=PriorityQueue(writes_max=0))
    with pytest.raises(QueueFull):
        drill.store_writer.submit(drill.pending(acquire()))
    drill.close()


# ------------------------------------------------------------ a store that refuses


def set_full(drill: Drill, is_full: bool) -> None:
    drill.store.is_full = is_full


def test_a_refused_batch_changes_nothing_and_says_when_to_come_again(refusing: Drill) -> None:
    refusing.acquire()
    before = refusing.history()
    set_full(refusing, True)
    for command in (m.Enter(1, nonce(1), "run"), m.Exited(1, nonce(1), 0)):
        answer = refusing.ask(command, request_id="r-1")
        assert refused(answer) == "overloaded"
        assert isinstance(answer, m.Rejection) and "disk is full" in answer.detail
        assert answer.retry_after_seconds
    assert refused(refusing.ask(acquire(), SubjobKey("new", "s"))) == "overloaded"
    assert refusing.store_writer.failure
    set_full(refusing, False)
    assert refusing.history() == before
    # Nothing of the refused ones is remembered: the same request ID is free, and fences go on.
    assert refusing.ask(m.Enter(1, nonce(1), "run"), request_id="r-1").entries == 1
    assert refusing.acquire(SubjobKey("new", "s")).fence == 1
    assert refusing.store_writer.failure is None


@only_exclusive
def test_a_holder_can_renew_while_the_store_refuses(refusing: Drill) -> None:
    refusing.acquire()
    set_full(refusing, True)
    for _ in range(5):
        refusing.now += 100
        assert refusing.ask(m.Renew(1, nonce(1))) == m.Renewal(120.0, "continue")
        assert refused(refusing.ask(m.Enter(1, nonce(1), "run"))) == "overloaded"
    set_full(refusing, False)
    refusing.now += 100
    assert refused(refusing.ask(acquire(2))) == "lease-still-live"


def test_a_renewal_behind_a_refused_write_is_refused_with_it(refusing: Drill) -> None:
    set_full(refusing, True)
    answers = refusing.ask_all(refusing.pending(acquire()), refusing.pending(m.Renew(1, nonce(1))))
    # In one batch the renewal saw the grant that was taken back; in two there was no subjob.
    assert refused(answers[0]) == "overloaded"
    assert refused(answers[1]) in ("overloaded", "unknown-subjob")


def test_a_mistake_while_writing_ends_neither_the_writer_nor_the_server(
    refusing: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(refusing.states.cache, "resize", lambda *_: 1 / 0)
        assert refused(refusing.ask(m.Enter(1, nonce(1), "run"))) == "overloaded"
    assert refusing.ask(m.Enter(1, nonce(1), "run")).entries == 1


def test_a_mistake_while_deciding_hurts_only_its_own_request(
    drill: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    drill.acquire()
    before = drill.history()

    def decide(state: SubjobState, command: m.Command, now: float) -> m.Decision:
        if isinstance(command, m.Exited):
            raise AssertionError("a rule that contradicts itself")
        return lifecycle.decide(state, command, now)

    monkeypatch.setattr(execute, "decide", decide)
    crashed, entered = drill.ask_all(
        drill.pending(m.Exited(1, nonce(1))), drill.pending(m.Enter(1, nonce(1), "run"))
    )
    assert crashed == Crashed() and entered.entries == 1
    assert len(drill.history()) == len(before) + 1
