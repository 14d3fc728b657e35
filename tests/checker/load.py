"""Clients that act out the lives of subjobs: starts, restarts, zombies, scripts and mischief."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from htlease.rules import messages as m
from htlease.rules.attempt import Evidence, Place, SubjobKey
from htlease.rules.plan import PhaseSpec, Plan
from tests.checker.line import Line, Unreachable
from tests.checker.record import Delivery

_PLANS = (
    Plan.single(),
    Plan((PhaseSpec("fetch", "once"), PhaseSpec("compute", "resume"), PhaseSpec("push", "once"))),
    Plan((PhaseSpec("fetch"), PhaseSpec("compute", "resume"), PhaseSpec("pack", "once"))),
    Plan((PhaseSpec("fetch", "once"), PhaseSpec("compute", "resume")), takeover="immediate"),
)
_TTLS_SECONDS = (1.0, 1.5, 3.0, 5.0)
#: A history has to fit into what the checker reads of it, and a run should see many subjobs.
_STARTS_MAX = 8
_TRIES_MAX = 60


class Over(Exception):
    """The run is over, or nobody answers any more."""


@dataclass
class Start:
    """One start of a submission, as its wrapper knows it."""

    command: m.Acquire
    fence: int = 0

    @property
    def pair(self) -> tuple[int, str]:
        return self.fence, self.command.nonce


class Story:
    """The life of one subjob, drawn from a seed; `run` acts it out."""

    def __init__(self, key: SubjobKey, line: Line, draw: random.Random, is_over: asyncio.Event):
        self._key = key
        self._line = line
        self._draw = draw
        self._is_over = is_over
        self._plan = draw.choice(_PLANS)
        self._ttl_seconds = draw.choice(_TTLS_SECONDS)
        self._ids = itertools.count(1)
        self._nonces = itertools.count(1)
        self._submission = 1
        #: What was asked, to be replayed.
        self._asked: list[tuple[m.Command, str]] = []

    async def run(self) -> None:
        """Start, kill and restart until the subjob is closed, or the run is over."""
        running: list[asyncio.Task[None]] = []
        try:
            number = 1
            before: Start | None = None
            for _ in range(_STARTS_MAX):
                if self._draw.random() < 0.15:
                    number, before = 1, None
                    self._submission += 1
                    if self._draw.random() < 0.5:
                        await self._say(self._enrollment())
                start = self._start(number, before)
                task = asyncio.create_task(self._quietly(self._attempt(start)))
                running.append(task)
                seconds = self._draw.choice([0.05, 0.3, 1.0, 2.5, 6.0])
                await asyncio.wait([task], timeout=seconds)
                if self._draw.random() < 0.6:  # else it goes on as a zombie
                    await self._end(task)
                    before = start
                    if self._draw.random() < 0.3:
                        await self._say(self._report(start))
                else:
                    before = None
                number += self._draw.choice([0, 1, 1, 1, 2])
                if self._draw.random() < 0.1:
                    await self._say(m.Cancel("enough"))
                if self._is_over.is_set():
                    break
            await self._script()
        except Over:
            pass
        finally:
            for task in running:
                await self._end(task)

    # ------------------------------------------------------------ those who act

    async def _attempt(self, start: Start) -> None:
        grant = await self._granted(start)
        if grant is None:
            return
        start.fence = grant["fence"]
        for phase in [phase["name"] for phase in grant["phases"] if phase["run"]]:
            await self._say(m.Enter(*start.pair, phase))
            await self._work(start, phase)
            if self._draw.random() < 0.1:
                await self._say(m.Fail(*start.pair, phase, "no space", 3))
                break
            await self._say(m.Complete(*start.pair, phase, {"out": f"sha256:{start.fence}"}))
        ends: tuple[m.Command, ...] = (
            m.Exited(*start.pair, 0),
            m.Exited(*start.pair, None, 9, "killed"),
            m.Abandon(*start.pair, "evicted"),
        )
        await self._say(self._draw.choice(ends))
        if self._draw.random() < 0.5:
            await self._say(m.Commit(*start.pair, "outputs are back"))

    async def _work(self, start: Start, phase: str) -> None:
        for step in range(self._draw.randrange(6)):
            command: m.Command = m.Renew(*start.pair)
            if self._draw.random() < 0.3:
                command = m.Renew(*start.pair, f"{phase} {step} under {start.fence}")
            await self._say(command)
            if self._draw.random() < 0.2:
                await self._mischief(start, phase)
            if self._draw.random() < 0.2:
                with contextlib.suppress(Unreachable):
                    await self._line.look(self._key)
            await self._sleep(self._draw.choice([0.0, 0.02, 0.1, self._ttl_seconds / 4]))

    async def _mischief(self, start: Start, phase: str) -> None:
        """Do what no client should, or what an old one would."""
        fence, nonce = start.pair
        wrong: list[m.Command] = [
            m.Renew(fence + 1, nonce, "from the future"),
            m.Renew(fence, self._nonce(), "somebody else's"),
            m.Complete(fence, self._nonce(), phase),
            m.Enter(max(1, fence - 1), nonce, phase),
            m.Exited(fence, self._nonce(), 0),
            m.Enter(fence, nonce, "no-such-phase"),
        ]
        what = self._draw.randrange(3)
        if what == 0:
            await self._say(self._draw.choice(wrong))
        elif what == 1:
            command, request_id = self._draw.choice(self._asked)
            await self._say(command, request_id)
        else:
            _, request_id = self._draw.choice(self._asked)
            await self._say(m.Abandon(fence, nonce, "under another's ID"), request_id)

    async def _script(self) -> None:
        """A POST script or an operator settles what the jobs have left."""
        if self._draw.random() < 0.5:
            return
        kind = self._draw.choice(["post", "operator"])
        start = Start(m.Acquire(self._nonce(), kind, ttl_seconds=self._ttl_seconds))
        grant = await self._granted(start)
        if grant is not None:
            start.fence = grant["fence"]
            settle: m.Command = m.Settle(*start.pair, "failed", "given up")
            if self._draw.random() < 0.5:
                settle = m.Commit(*start.pair, "outputs are back")
            await self._say(settle)

    async def _granted(self, start: Start) -> dict[str, Any] | None:
        """Ask for the lease until it is granted or refused for good."""
        for _ in range(_TRIES_MAX):
            request_id = self._request_id()
            answer = await self._say(start.command, request_id)
            if answer.status == 200:
                return dict(answer.document)
            if answer.document["code"] != "lease-still-live":
                return None
            await self._sleep(self._draw.choice([0.05, 0.2, 0.6]))
        return None

    # ------------------------------------------------------------ what they need

    def _start(self, number: int, before: Start | None) -> Start:
        """Return a start; `before` is one that has surely ended, in whose slot it may come."""
        place = Place("ep1", f"slot1_{self._draw.randrange(1000)}@ep1", "<ep1>#17")
        if before is not None and self._draw.random() < 0.3:
            place = before.command.place
        return Start(
            m.Acquire(
                self._nonce(),
                "job",
                Evidence(number, number, None, 1),
                place,
                f"ap1#{self._submission}.0#1795225431",
                "ep1",
                self._ttl_seconds,
                self._plan,
            )
        )

    def _enrollment(self) -> m.Enroll:
        known = self._draw.choice([None, f"ap1#{self._submission}.0#1795225431"])
        links = self._draw.choice([{}, {"ce": f"ce1#{self._submission}.0"}])
        return m.Enroll(known, self._submission, links, force=self._draw.random() < 0.5)

    def _report(self, start: Start) -> m.Ended:
        assert start.command.global_job_id is not None
        evidence = start.command.evidence
        return m.Ended(start.command.global_job_id, evidence.job_starts, evidence.shadow_starts, 0)

    async def _say(self, command: m.Command, request_id: str | None = None) -> Delivery:
        """Repeat a request until it is answered, as clients do."""
        request_id = request_id or self._request_id()
        self._asked.append((command, request_id))
        for _ in range(_TRIES_MAX):
            try:
                answer = await self._line.ask(self._key, command, request_id)
            except Unreachable:
                await self._sleep(0.05)
                continue
            if answer.status != 503:
                return answer
            await self._sleep(0.2)
        raise Over

    async def _sleep(self, seconds: float) -> None:
        if self._is_over.is_set():
            raise Over
        await asyncio.sleep(seconds)

    async def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _quietly(self, what: Awaitable[None]) -> None:
        with contextlib.suppress(Over):
            await what

    def _nonce(self) -> str:
        return f"nonce-{self._key.subjob}-{next(self._nonces):04d}-0123456789"

    def _request_id(self) -> str:
        return f"{self._key.subjob}-{next(self._ids)}"
