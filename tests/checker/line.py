"""A client's way to the server, on which requests and replies are lost, late, or come twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.wire.protocol import body_of, command_path, subjob_path
from tests.checker.record import Delivery

#: Longer than any pause of the server that a run makes.
_ANSWER_SECONDS = 20.0
FAULTS = ("request cut", "reply lost", "sent twice", "late again", "delayed")


class Unreachable(Exception):
    """No whole answer came; whether the server acted is unknown."""


class Endpoint(NamedTuple):
    """One server that can be asked; replicas have several."""

    host: str
    port: int


class Line:
    """Sends the requests of one subjob's clients with faults, and records each delivery."""

    def __init__(
        self, endpoints: Sequence[Endpoint], token: str, draw: random.Random, fault_part: float
    ) -> None:
        self._endpoints = endpoints
        self._token = token
        self._draw = draw
        self._fault_part = fault_part
        self._late: set[asyncio.Task[None]] = set()
        self.deliveries: list[Delivery] = []
        self.faults: Counter[str] = Counter()
        self._reads = itertools.count(1)

    async def ask(self, key: SubjobKey, command: m.Command, request_id: str) -> Delivery:
        """Deliver a command once, or as the network pleases; raises Unreachable."""
        fault = "none"
        if self._draw.random() < self._fault_part:
            fault = self._draw.choice(FAULTS)
        self.faults[fault] += 1
        pause_seconds = self._draw.choice([0.002, 0.02, 0.2, 0.7])
        if fault == "delayed":
            await asyncio.sleep(pause_seconds)
        elif fault in ("sent twice", "late again"):
            task = asyncio.create_task(
                self._again(pause_seconds if fault == "late again" else 0, key, command, request_id)
            )
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        return await self._deliver(
            key, command, request_id, is_cut=fault == "request cut", is_lost=fault == "reply lost"
        )

    async def look(self, key: SubjobKey) -> Delivery:
        """Read a subjob; raises Unreachable."""
        return await self._deliver(key, None, f"read-{next(self._reads)}")

    async def settle(self) -> None:
        """Wait until everything that is late has arrived."""
        await asyncio.gather(*self._late)

    async def _again(
        self, pause_seconds: float, key: SubjobKey, command: m.Command, request_id: str
    ) -> None:
        await asyncio.sleep(pause_seconds)
        with contextlib.suppress(Unreachable):
            await self._deliver(key, command, request_id)

    async def _deliver(
        self,
        key: SubjobKey,
        command: m.Command | None,
        request_id: str,
        is_cut: bool = False,
        is_lost: bool = False,
    ) -> Delivery:
        request = self._request(key, command, request_id)
        delivery = Delivery(key, command, request_id, time.monotonic())
        endpoint = self._draw.choice(self._endpoints)
        try:
            reader, writer = await asyncio.open_connection(*endpoint)
        except OSError as problem:
            raise Unreachable(str(problem)) from problem
        try:
            if is_cut:  # not a request, so nothing may come of it
                writer.write(request[: self._draw.randrange(1, len(request))])
                raise Unreachable("request cut")
            self.deliveries.append(delivery)
            writer.write(request)
            await writer.drain()
            if is_lost:
                raise Unreachable("reply lost")
            answer = await asyncio.wait_for(reader.read(), _ANSWER_SECONDS)
            status, document = _parsed(answer)
        except (OSError, TimeoutError, asyncio.TimeoutError, ValueError) as problem:
            raise Unreachable(repr(problem)) from problem
        finally:
            writer.close()
        if status == 503 and "nothing was changed" not in document["detail"]:
            raise Unreachable("the server does not know whether it was done")
        delivery.answered_at = time.monotonic()
        delivery.status, delivery.document = status, document
        return delivery

    def _request(self, key: SubjobKey, command: m.Command | None, request_id: str) -> bytes:
        body = b""
        method, path = "GET", subjob_path(key)
        if command is not None:
            method, path = "POST", command_path(key, command)
            body = json.dumps(body_of(command, request_id)).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: checker\r\nConnection: close\r\n"
            f"Authorization: Bearer {self._token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def _parsed(answer: bytes) -> tuple[int, Any]:
    """Read a whole answer; raises ValueError when it is none."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        raise ValueError("no whole answer")
    status_line, *headers = head.split(b"\r\n")
    for header in headers:
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length" and int(value) != len(body):
            raise ValueError("the answer was cut")
    return int(status_line.split(b" ")[1]), json.loads(body)
