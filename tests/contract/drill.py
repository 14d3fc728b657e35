"""A writer under a clock that the test moves, over any store."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from tests.contract.stores import StoreKind
from tests.published import conforming

from htlease.rules import messages as m
from htlease.rules.attempt import Evidence, SubjobKey
from htlease.rules.plan import PhaseSpec, Plan
from htlease.rules.state import SubjobState
from htlease.wire.protocol import body_of, call_of
from htlease_server.api.queries import Queries
from htlease_server.engine.batch import Answer, PendingRequest
from htlease_server.engine.commit.priority_queue import PriorityQueue
from htlease_server.engine.history import state_from
from htlease_server.engine.site.flags import PutFlag
from htlease_server.engine.site.maintenance import Announce, PutMaintenance, WindowChange, Withdraw
from htlease_server.engine.site.workflows import PutWorkflow
from htlease_server.models import response_models as docs
from htlease_server.models.request_models import READERS, WORKFLOW_DECODER, decode
from htlease_server.store.base import HistoryRow

KEY = SubjobKey("run7", "sample-1")
START = 1_795_225_431.0
PLAN = Plan((PhaseSpec("fetch"), PhaseSpec("compute", "resume"), PhaseSpec("push", "once")))


class PublishedQueries(Queries):
    """Reads what a server would answer, and fails unless it is as published."""

    async def subjob(self, key: SubjobKey) -> docs.SubjobDocument | None:
        found = await super().subjob(key)
        return found and conforming("subjob", found)

    async def history(self, key: SubjobKey, after: int, limit: int) -> docs.HistoryPage | None:
        found = await super().history(key, after, limit)
        return found and conforming("history", found)

    async def workflow(self, name: str, after: str, limit: int) -> docs.WorkflowDocument | None:
        found = await super().workflow(name, after, limit)
        return found and conforming("workflow", found)

    async def workflows(self, after: str, limit: int) -> docs.Workflows:
        return conforming("workflows", await super().workflows(after, limit))

    async def maintenance(self) -> docs.Maintenance:
        return conforming("maintenance", await super().maintenance())

    async def flags(self, workflow: str | None) -> docs.Flags:
        return conforming("flags", await super().flags(workflow))

    async def known_as(self, id_text: str) -> list[docs.SubjobSummary]:
        found = await super().known_as(id_text)
        conforming("find", {"subjobs": found})
        return found


class Drill:
    """Starts and stops servers over one store and asks them."""

    def __init__(
        self, kind: StoreKind, folder: Path, wrap: Callable[[Any], Any] = lambda store: store
    ) -> None:
        self.kind = kind
        self.folder = folder
        self._wrap = wrap
        self._loop = asyncio.new_event_loop()
        self._ids = (f"{id(self):x}-{number}" for number in itertools.count(1))
        self.now = START
        self.start()

    @property
    def now(self) -> float:
        return self._now

    @now.setter
    def now(self, at: float) -> None:
        self._now = at
        self.kind.set_clock(self.folder, at)

    def clock(self) -> float:
        return self._now

    def start(self, **limits: Any) -> None:
        """Start a server."""
        self.store = self._wrap(self.kind.open(self.folder))
        queue = limits.pop("queue", None) or PriorityQueue()
        self.store_writer = self.kind.store_writer(self.store, self.clock, queue, **limits)
        self.states = self.store_writer.states
        self.queries = PublishedQueries(self.states)
        self.store_writer.start(self._loop)

    def stop(self) -> None:
        """Stop the server as SIGTERM does."""
        self.queries.close()
        self.store_writer.stop()

    def close(self) -> None:
        if self.store_writer.is_alive:
            self._read_all()
            self.stop()
        self._loop.run_until_complete(asyncio.sleep(0))  # what was cancelled ends
        self._loop.close()

    def _read_all(self) -> None:
        """Read what the test has made, since whatever it was, its documents are as published."""
        for workflow in self.read(self.queries.workflows("", 20))["workflows"]:
            name = workflow["workflow"]
            for found in self.read(self.queries.workflow(name, "", 20))["subjobs"]:
                key = SubjobKey(name, found["subjob"])
                self.read(self.queries.subjob(key))
                self.read(self.queries.history(key, 0, 100))

    def restart(self, after_seconds: float, **limits: Any) -> None:
        """Stop the server and start another one later."""
        self.stop()
        self.now += after_seconds
        self.start(**limits)

    def pending(
        self, command: m.Command, key: SubjobKey = KEY, request_id: str | None = None
    ) -> PendingRequest:
        """Return a command as it comes out of a request."""
        body = body_of(command, request_id or f"request-{next(self._ids)}")
        sent = READERS[call_of(command)].read(
            json.dumps(body).encode(), getattr(command, "phase", None)
        )
        return PendingRequest(key, sent, "admin", self._loop.create_future())

    def future(self) -> asyncio.Future[Answer]:
        """Return where an answer goes."""
        return self._loop.create_future()

    def ask_all(self, *requests: PendingRequest) -> list[Any]:
        """Queue requests at once and return their answers."""
        for pending in requests:
            self.store_writer.submit(pending)

        futures = [cast("asyncio.Future[Answer]", pending.future) for pending in requests]

        async def answers() -> list[Answer]:
            return await asyncio.wait_for(asyncio.gather(*futures), timeout=30)

        return self._loop.run_until_complete(answers())

    def ask(self, command: m.Command, key: SubjobKey = KEY, request_id: str | None = None) -> Any:
        """Ask one command and return the answer."""
        return self.ask_all(self.pending(command, key, request_id))[0]

    def put(self, name: str, **body: Any) -> Any:
        """PUT a workflow."""
        raw = json.dumps({"request_id": f"put-{next(self._ids)}", **body}).encode()
        read = decode(WORKFLOW_DECODER, raw)
        put = PutWorkflow(name, read, read.plan_wanted(), raw)
        return self.ask_all(PendingRequest(None, put, "admin", self._loop.create_future()))[0]

    def maintain(self, seconds: float, reason: str | None = None) -> Any:
        """PUT a maintenance window that ends in so many seconds."""
        return self._change(PutMaintenance(seconds, reason))

    def announce(
        self, begin: float, until: float, instead_of: float | None = None, reason: str | None = None
    ) -> Any:
        """Announce a maintenance window, or move one; all instants in seconds after `START`."""
        replaced = None if instead_of is None else START + instead_of
        return self._change(Announce(START + begin, START + until, reason, replaced))

    def withdraw(self, begin: float) -> Any:
        """Withdraw the window announced from `START` plus so many seconds."""
        return self._change(Withdraw(START + begin))

    def _change(self, change: WindowChange) -> Any:
        return self.ask_all(PendingRequest(None, change, "admin", self._loop.create_future()))[0]

    def flag(self, name: str, is_up: bool, reason: str | None = None) -> Any:
        """PUT a flag."""
        put = PutFlag(name, is_up, reason)
        return self.ask_all(PendingRequest(None, put, "admin", self._loop.create_future()))[0]

    def read(self, look_up: Any) -> Any:
        """Return what a coroutine of `queries` returns."""
        return self._loop.run_until_complete(look_up)

    def until_counted(self, workflow: str, after: str = "") -> Any:
        """Return a workflow once its lapsed leases have been counted, after an instant."""
        deadline = time.monotonic() + 20
        while True:
            found = self.read(self.queries.workflow(workflow, "", 100))
            if (found["lapsed_counted_at"] or "") > after:
                return found
            assert time.monotonic() < deadline, f"nobody counts the leases of {workflow}"
            self._loop.run_until_complete(asyncio.sleep(0.01))

    def acquire(self, key: SubjobKey = KEY, **changes: Any) -> m.Grant:
        """Get a lease that has to be granted."""
        answer = self.ask(acquire(**changes), key)
        assert isinstance(answer, m.Grant), answer
        return answer

    def state(self, key: SubjobKey = KEY) -> SubjobState:
        """Return the state as it lies in the store."""
        row = self.store.subjob(key)
        assert row is not None
        return state_from(row.snapshot, row.deadline_at)

    def history(self, key: SubjobKey = KEY) -> list[HistoryRow]:
        """Return all events in the store."""
        row = self.store.subjob(key)
        return [] if row is None else list(self.store.history(row.id, 0, 10_000))

    def flush(self, after_seconds: float = 1) -> None:
        """Let the server write what it may write late."""
        self.now += after_seconds
        deadline = time.monotonic() + 20
        while self.states.unflushed:
            assert time.monotonic() < deadline, "the server does not flush"
            self._loop.run_until_complete(asyncio.sleep(0.01))


def nonce(number: int) -> str:
    return f"nonce-of-attempt-{number:04d}"


def acquire(number: int = 1, **changes: Any) -> m.Acquire:
    """Return what the `number`-th start of a submission asks."""
    fields = {
        "nonce": nonce(number),
        "evidence": Evidence(job_starts=number, shadow_starts=number),
        "global_job_id": "ap1#42.0#1795225431",
        "ttl_seconds": 120.0,
        **changes,
    }
    return m.Acquire(**fields)


def refused(answer: object) -> str:
    """Return the code of an answer that has to be a refusal."""
    assert isinstance(answer, m.Rejection), answer
    return answer.code


def comparable(state: SubjobState) -> SubjobState:
    """Leave out what the history does not keep: renewed deadlines and the text of details."""
    phases = {name: replace(record, details=None) for name, record in state.phases.items()}
    return replace(state, deadline_at=0.0, details=None, phases=phases)
