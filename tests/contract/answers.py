"""A day of a server over SQLite, as text: `tests/data/answers.txt` has what each request got.

A line for each request: its outcome, and a digest of its whole answer; and one for each step with a
digest of every row that the store has then, and of what is in memory only.
`python -m tests.contract.answers` writes it anew.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.contract.drill import START, Drill, acquire, nonce
from tests.contract.stores import RefusingStore, SqliteKind, WriterAtOnce
from tests.unit.core.rules.decisions import told

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.plan import PhaseSpec, Plan
from htlease_server.engine.batch import PendingRequest
from htlease_server.engine.commit.group_commit import GroupCommitWriter
from htlease_server.engine.commit.priority_queue import PriorityQueue
from htlease_server.engine.commit.store_writer import StoreWriter
from htlease_server.engine.site.audit import MINT, AuditEntry
from htlease_server.engine.site.flags import PutFlag
from htlease_server.engine.site.maintenance import Announce, PutMaintenance, Withdraw
from htlease_server.engine.site.retention import Trim
from htlease_server.engine.site.workflows import PutWorkflow
from htlease_server.engine.states.memory_states import InMemoryStates
from htlease_server.models.request_models import WORKFLOW_DECODER, decode
from htlease_server.store.base import WriteSet

RECORD = Path(__file__).resolve().parents[1] / "data" / "answers.txt"
PLAN = Plan((PhaseSpec("fetch", needs=("hpss",)), PhaseSpec("push", "once")))
A, B, C = (SubjobKey("run7", name) for name in "abc")
#: Of rows that say when or where, or that only this machine has.
_NOT_TOLD = ("store_place",)


class AtOnce(SqliteKind):
    """A server whose writes are made in this process, so that they can be made to fail."""

    def store_writer(
        self, store: Any, clock: Callable[[], float], queue: PriorityQueue, **limits: Any
    ) -> StoreWriter:
        return GroupCommitWriter(
            InMemoryStates(store, clock, **limits), clock, queue, WriterAtOnce(store)
        )


class Day:
    """What was asked so far, and what came of it."""

    def __init__(self, folder: Path) -> None:
        self.drill = Drill(AtOnce(), folder, RefusingStore)
        self._path = folder / "store.sqlite3"
        self._number = 0
        self.lines: list[str] = []

    def command(
        self, command: m.Command, key: SubjobKey = A, request_id: str | None = None, **who: Any
    ) -> PendingRequest:
        self._number += 1
        pending = self.drill.pending(command, key, request_id or f"r-{self._number}")
        for name, value in who.items():
            setattr(pending, name, value)
        return pending

    def wide(self, sent: Any, key: SubjobKey | None = None, **who: Any) -> PendingRequest:
        return PendingRequest(key, sent, who.pop("actor", "admin"), self.drill.future(), **who)

    def workflow(
        self, name: str, body: str, plan: Plan | None = None, **who: Any
    ) -> PendingRequest:
        raw = body.encode()
        return self.wide(PutWorkflow(name, decode(WORKFLOW_DECODER, raw), plan, raw), **who)

    def step(self, *asked: PendingRequest | m.Command) -> None:
        """Ask all at once, and take down the answers and what is there then."""
        requests = [one if isinstance(one, PendingRequest) else self.command(one) for one in asked]
        self.drill.now += 1
        for pending, answer in zip(requests, self.drill.ask_all(*requests), strict=True):
            outcome = answer.code if isinstance(answer, m.Rejection) else type(answer).__name__
            sent = getattr(pending.sent, "command", pending.sent)
            self.lines.append(f"{type(sent).__name__}: {outcome} {digest(told(answer))}")
        self.look()

    def look(self) -> None:
        """Take down what the store has, and what is in memory only."""
        states = self.drill.states
        memory = [
            told(dict(states.unflushed)),
            told(dict(states.flags)),
            told(states.downtime.windows),
            f"{len(states.cache)} {sorted(map(str, states.deleting))} {states.fence_floor}",
            f"{self.drill.store_writer.failure} {self.drill.store_writer.queued}",
        ]
        self.lines.append(f"  store {digest(*self._rows())} memory {digest(*memory)}")

    def restart(self, after_seconds: float) -> None:
        self.lines.append(f"restart after {after_seconds:g} s")
        self.drill.restart(after_seconds)

    def full(self, is_full: bool) -> None:
        self.drill.store.is_full = is_full

    def _rows(self) -> Iterator[str]:
        db = sqlite3.connect(self._path)
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        for name in sorted({*names} - {*_NOT_TOLD}):
            yield name
            yield from sorted(repr(row) for row in db.execute(f"SELECT * FROM {name}"))
        db.close()


def digest(*told: str) -> str:
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]


def _morning(day: Day) -> None:
    """Workflows, and who may have them."""
    put = '{"request_id": "w-1", "labels": {"group": "star"}}'
    day.step(day.workflow("run7", put, PLAN, owner="alice", via="1.1 agent"))
    day.step(day.workflow("run7", put, PLAN, owner="bob"))
    day.step(day.workflow("run7", '{"request_id": "w-1", "labels": {}}', PLAN))
    day.step(day.workflow("t", '{"request_id": "w-2", "template": true}', PLAN))
    day.step(day.workflow("copy", '{"request_id": "w-3", "copy_of": "run7"}'))
    day.step(day.workflow("copy", '{"request_id": "w-4", "copy_of": "nothing"}'))
    day.step(day.workflow("run7", '{"request_id": "w-5"}', owner="bob", is_own_only=True))
    day.step(day.workflow("bobs", '{"request_id": "w-6"}', owner="bob", is_own_only=True))
    day.step(day.command(acquire(), SubjobKey("t", "x")))
    day.step(day.command(acquire(), SubjobKey("run7", "x"), owner="bob", is_own_only=True))
    day.step(day.command(acquire(), SubjobKey("bobs", "x"), owner="bob", is_own_only=True))
    day.step(day.command(acquire(), SubjobKey("new", "x"), owner="bob", is_own_only=True))
    day.step(day.command(m.Enter(1, nonce(1), "run"), SubjobKey("new", "nobody")))
    day.step(day.wide(AuditEntry(MINT, "run7", data={"ttl": 1, "left_out": None}), via="1.1 agent"))
    day.step(day.command(m.Renew(1, nonce(1)), SubjobKey("run7", "nobody")))


def _jobs(day: Day) -> None:
    """Starts, writes and repetitions."""
    day.step(day.command(m.Enroll("ap1#42.0#1795225431"), A, "enroll-1"))
    day.step(day.command(m.Enroll("ap1#43.0#1795225431"), A, "enroll-2"))
    day.step(day.command(m.Enroll("ap1#42.0#1795225431"), A, "enroll-1"))
    day.step(day.command(m.Enroll("ap1#44.0#1795225431"), A, "enroll-1"))
    day.step(day.command(acquire(global_job_id="ap1#43.0#1795225431"), A, "a-1", via="1.1 agent"))
    day.step(
        day.command(acquire(global_job_id="ap1#43.0#1795225431"), A, "a-1"),
        day.command(acquire(2), A, "a-1"),
        day.command(acquire(2, global_job_id="ap1#43.0#1795225431"), A, "a-2"),
    )
    day.step(
        day.command(m.Enter(1, nonce(1), "fetch"), A, "e-1"),
        day.command(m.Enter(1, nonce(1), "fetch"), A, "e-1"),
        day.command(m.Renew(1, nonce(1), "some details"), A, "d-1"),
        day.command(m.Renew(1, nonce(1))),
    )
    day.step(m.Renew(1, nonce(1)))
    day.step(m.Renew(7, nonce(1)), m.Renew(1, nonce(9)), m.Renew(7, nonce(1)))
    day.step(m.Complete(1, nonce(1), "fetch"), m.Enter(1, nonce(1), "push"))
    day.step(day.command(m.Complete(1, nonce(1), "push"), A, "c-1"))
    day.step(day.command(m.Complete(1, nonce(1), "push"), A, "c-1"), m.Exited(1, nonce(1), 0))
    day.step(day.command(acquire(3), A, "late"), m.Renew(1, nonce(1)))
    day.step(day.command(acquire(), B), day.command(acquire(), C), day.command(acquire(2), B))


def _renewals(day: Day) -> None:
    """Word of mouth, and what is on the disk."""
    drill = day.drill
    for seconds in (0.1, 30.0):
        drill.now += seconds
        day.step(day.command(m.Renew(1, nonce(1)), B))
    drill.flush()
    day.look()
    day.restart(60)
    day.step(day.command(m.Renew(1, nonce(1)), B))
    day.step(day.command(m.Renew(1, nonce(1)), B), day.command(m.Renew(1, nonce(1)), C))
    drill.now += 500
    day.step(day.command(m.Renew(1, nonce(1)), B))
    drill.now += 500
    day.step(day.command(acquire(2), B, "a-b"))
    day.step(day.command(m.Renew(1, nonce(1)), B), day.command(m.Enter(1, nonce(1), "fetch"), B))
    day.restart(1)
    day.step(day.command(acquire(2), B, "a-b"), day.command(acquire(1), B))


def _refusals(day: Day) -> None:
    """The same request gets the same answer."""
    key = SubjobKey("run7", "refused")
    day.step(day.command(acquire(), key))
    day.step(day.command(acquire(2), key, "no-1"), day.command(acquire(2), key, "no-2"))
    day.step(day.command(m.Abandon(1, nonce(1)), key))
    day.step(day.command(acquire(2), key, "no-1"), day.command(acquire(2), key, "no-2"))
    day.step(day.command(acquire(3), key, "no-2"))
    day.restart(1)
    day.step(day.command(acquire(2), key, "no-1"))
    day.step(
        day.command(acquire(2), key, "yes"), day.command(m.Enter(2, nonce(2), "no"), key, "no")
    )
    day.step(day.command(m.Enter(2, nonce(2), "no"), key, "no"))
    closed = SubjobKey("run7", "closed")
    script = acquire(1, kind="pre", global_job_id=None)
    day.step(day.command(acquire(), closed))
    day.step(day.command(m.Cancel("enough"), closed))
    day.step(day.command(script, closed, "told"))
    day.step(day.command(m.Enroll(None, force=True), closed))
    day.restart(1)
    day.step(day.command(script, closed, "told"), day.command(script, closed, "new"))


def _outages(day: Day) -> None:
    """Windows and flags."""
    at = day.drill.now - START
    day.step(day.wide(PutMaintenance(0.0)))
    day.step(day.wide(Announce(START + at + 50, START + at + 90, "power")))
    day.step(day.wide(Announce(START + at - 50, START + at + 90, "late")))
    day.step(day.wide(Announce(START + at + 60, START + at + 99, None, START + at + 50)))
    day.step(day.wide(Withdraw(START + at + 60)), day.wide(Withdraw(START + at + 61)))
    day.step(day.wide(PutMaintenance(100.0, "now"), actor="operator"))
    day.step(day.command(m.Renew(1, nonce(1)), C), day.command(acquire(2), C))
    day.drill.now += 90
    day.step(day.command(acquire(2), C), day.wide(PutMaintenance(0.0)))
    day.restart(300)
    day.step(day.command(acquire(2), C))
    day.step(day.wide(PutFlag("hpss", False, "tape robot"), actor="operator"))
    key = SubjobKey("run7", "flagged")
    day.step(day.command(acquire(heeds_flags=True), key, "f-1"), day.command(acquire(), key))
    day.step(day.command(m.Enter(1, nonce(1), "fetch"), key, "f-2"))
    day.step(day.wide(PutFlag("hpss", True)), day.wide(PutFlag("hpss@star", False)))
    day.step(day.command(m.Enter(1, nonce(1), "fetch"), key, "f-2"))
    day.step(day.command(m.Enter(1, nonce(1), "fetch"), key, "f-3"))
    day.step(day.wide(PutFlag("hpss@star", True)))
    day.step(day.command(m.Enter(1, nonce(1), "fetch"), key, "f-4"))


def _full_disk(day: Day) -> None:
    """What is refused is undone, and nothing else."""
    key = SubjobKey("fresh", "s")
    day.step(day.command(m.Renew(1, nonce(1)), SubjobKey("run7", "flagged")))
    day.full(True)
    day.step(
        day.command(acquire(), key, "full-1"),
        day.command(m.Enter(1, nonce(1), "run"), key),
        day.command(m.Renew(1, nonce(1)), SubjobKey("run7", "flagged")),
        day.command(m.Renew(1, nonce(1), "lost"), SubjobKey("run7", "flagged"), "full-2"),
        day.wide(PutMaintenance(50.0)),
        day.wide(PutFlag("hpss", False)),
        day.workflow("fresh2", '{"request_id": "w-9"}'),
    )
    day.step(day.command(m.Renew(1, nonce(1)), SubjobKey("run7", "flagged")))
    day.drill.now += 10
    day.step(day.command(m.Enter(1, nonce(1), "run"), key))
    day.full(False)
    day.step(
        day.command(acquire(), key, "full-1"),
        day.command(m.Renew(1, nonce(1), "kept"), SubjobKey("run7", "flagged"), "full-2"),
    )
    day.step(day.workflow("fresh2", '{"request_id": "w-9"}'))


def _evening(day: Day) -> None:
    """Fences above a floor, what is trimmed, and mistakes of ours."""
    day.drill.store.write(WriteSet(fence_floor=5000))
    day.restart(1)
    day.step(day.command(acquire(), SubjobKey("run7", "above")))
    day.step(day.command(m.Enroll(None), SubjobKey("run7", "above2")))
    day.step(day.command(acquire(), SubjobKey("run7", "above2")))
    day.step(day.command(acquire(2), B))
    for name in ("x", "y"):
        key = SubjobKey("old", name)
        day.step(day.command(acquire(), key))
        day.step(day.command(m.Cancel(None), key))
    row = day.drill.store.workflow("old")
    assert row is not None
    day.drill.now += 1e6
    before = day.drill.now - 1e5
    day.step(
        day.wide(Trim(row.id, "old", before - 1e7)), day.wide(Trim(row.id + 99, "old", before))
    )
    day.step(day.wide(Trim(row.id, "old", before)), day.command(acquire(), SubjobKey("old", "x")))
    day.step(day.wide(Trim(row.id, "old", before)))
    day.step(day.command(acquire(), SubjobKey("old", "x")))
    broken = day.command(acquire())
    broken.key = None
    day.step(broken, day.command(replace(acquire(2), nonce=nonce(2)), A))


def lines() -> Iterator[str]:
    """Yield the whole day."""
    with tempfile.TemporaryDirectory() as folder:
        day = Day(Path(folder))
        for part in (_morning, _jobs, _renewals, _refusals, _outages, _full_disk, _evening):
            day.lines.append(f"## {part.__name__.strip('_')}")
            part(day)
        day.drill.stop()
        yield from day.lines


if __name__ == "__main__":
    RECORD.write_text("\n".join(lines()) + "\n")
