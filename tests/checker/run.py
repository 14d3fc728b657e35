"""One run: stories on a site that is disturbed meanwhile, and what the checker finds in them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from htlease.rules.attempt import SubjobKey
from htlease.wire.protocol import subjob_path
from tests.checker.explain import findings
from tests.checker.line import Endpoint, Line
from tests.checker.load import Story
from tests.checker.record import Outage, Recording
from tests.checker.steps import Finding
from tests.serving import exchange

#: Of all requests, those to which something happens on the way.
FAULT_PART = 0.2
_PAGE = 1000
_AWAY_SECONDS = 60.0


class Site(Protocol):
    """What is tested: one server, or several on one database."""

    @property
    def endpoints(self) -> list[Endpoint]:
        """Where clients may ask."""

    @property
    def token(self) -> str:
        """One that may do everything."""

    def disturb(self, draw: random.Random) -> Outage | None:
        """Do something to the site that it has to survive; it runs again afterwards."""


@dataclass
class Settings:
    """How a run is drawn and how long it is."""

    seed: int
    seconds: float
    #: Subjobs that are alive at a time; each has several clients.
    at_once: int = 48
    fault_part: float = FAULT_PART


@dataclass
class Run:
    """What a run has recorded."""

    settings: Settings
    recordings: list[Recording] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    disturbances: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def findings(self) -> list[Finding]:
        """Return all that the rules do not explain."""
        return [
            finding
            for recording in self.recordings
            for finding in findings(recording, self.outages)
        ]

    @property
    def answers(self) -> Counter[str]:
        """How often each code was answered, `ok` for none."""
        return Counter(
            "ok" if delivery.status == 200 else delivery.document["code"]
            for one in self.recordings
            for delivery in one.deliveries
            if delivery.is_answered
        )

    @property
    def grants(self) -> Counter[str]:
        """How often a lease was granted for each reason."""
        return Counter(
            event["why"]
            for one in self.recordings
            for event in one.history
            if event["event"] == "lease-acquired"
        )

    def __str__(self) -> str:
        return (
            f"seed {self.settings.seed}, {self.settings.seconds:g} s: {len(self.recordings)}"
            f" subjobs, {sum(len(one.deliveries) for one in self.recordings)} requests,"
            f" {self.answers.total()} answers {dict(self.answers.most_common())},"
            f" {sum(len(one.history) for one in self.recordings)} events,"
            f" grants {dict(self.grants)}, faults {dict(self.faults)},"
            f" {self.disturbances} disturbances, {len(self.outages)} of them outages"
        )


def run(site: Site, settings: Settings) -> Run:
    """Act out stories for some seconds and return what was recorded."""
    return asyncio.run(_run(site, settings))


async def _run(site: Site, settings: Settings) -> Run:
    result, is_calm, is_over = Run(settings), asyncio.Event(), asyncio.Event()
    workflow = f"checked-{settings.seed}-{random.randrange(10**9)}"
    lines: dict[SubjobKey, Line] = {}

    async def one_after_the_other() -> None:
        while not is_over.is_set():
            key = SubjobKey(workflow, f"s-{len(lines):04d}")
            draw = random.Random(f"{settings.seed} {key.subjob}")
            line = Line(site.endpoints, site.token, draw, settings.fault_part)
            lines[key] = line
            await Story(key, line, draw, is_over).run()

    async def disturb() -> None:
        draw = random.Random(settings.seed)
        while not is_calm.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(is_calm.wait(), draw.uniform(0.2, 1.5))
                return
            outage = await asyncio.to_thread(site.disturb, draw)
            result.disturbances += 1
            if outage is not None:
                result.outages.append(outage)

    async def end() -> None:
        disturbing = asyncio.create_task(disturb())
        await asyncio.sleep(settings.seconds)
        is_calm.set()
        await disturbing
        calm_at = time.monotonic()
        while not _is_answered_since(calm_at, lines.values()):
            assert time.monotonic() < calm_at + _AWAY_SECONDS, "nothing works after the last outage"
            await asyncio.sleep(0.1)
        is_over.set()

    await asyncio.gather(end(), *(one_after_the_other() for _ in range(settings.at_once)))
    for line in lines.values():
        await line.settle()
        result.faults += line.faults
    result.recordings = [
        await asyncio.to_thread(_recording, site, key, line) for key, line in lines.items()
    ]
    return result


def _is_answered_since(instant: float, lines: Iterable[Line]) -> bool:
    return any(
        delivery.status == 200 and delivery.command is not None and delivery.sent_at > instant
        for line in lines
        for delivery in line.deliveries
    )


def _recording(site: Site, key: SubjobKey, line: Line) -> Recording:
    path = subjob_path(key)
    status, final = _read(site, path)
    history: list[dict[str, Any]] = []
    while status == 200:
        after = history[-1]["seq"] if history else 0
        _, page = _read(site, f"{path}/history?after={after}&limit={_PAGE}")
        history += page["events"]
        if page["next"] is None:
            return Recording(key, line.deliveries, history, final)
    assert status == 404, final
    return Recording(key, line.deliveries, [], None)


def _read(site: Site, path: str) -> tuple[int, dict[str, Any]]:
    """GET a document, as soon as a server has found its database again."""
    until = time.monotonic() + _AWAY_SECONDS
    while True:
        host, port = site.endpoints[0]
        status, document = exchange(f"http://{host}:{port}{path}", site.token)
        if status != 503 or time.monotonic() > until:
            return status, document
        time.sleep(0.1)
