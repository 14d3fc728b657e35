"""A load generator that costs little: prepared requests over raw asyncio connections.

It runs beside the server on a machine with two cores, so it only looks at the status line and the
length of an answer.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

import uvloop

_T = TypeVar("_T")


@dataclass
class Outcome:
    """What a load came to."""

    seconds: float = 0.0
    #: One for each answer, in the order of arrival.
    latencies_seconds: list[float] = field(default_factory=list)
    #: Status lines other than 200, with how often each came.
    refusals: dict[bytes, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Accepted requests per second."""
        return (len(self.latencies_seconds) - sum(self.refusals.values())) / self.seconds

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the latencies."""
        ordered = sorted(self.latencies_seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000


class _Connection(asyncio.Protocol):
    """Sends one request at a time and tells `on_answer` when it has been answered."""

    def __init__(self, outcome: Outcome, on_answer: Callable[[_Connection], None]) -> None:
        self._outcome = outcome
        self._on_answer = on_answer
        self._buffer = b""
        self._due_at = 0.0
        self.lost: BaseException | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, due_at: float) -> None:
        """Send a request; its latency counts from when it was due."""
        self._due_at = due_at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        at = self._buffer.find(b"content-length: ")
        size = int(self._buffer[at + 16 : self._buffer.index(b"\r\n", at)])
        if len(self._buffer) < head_end + 4 + size:
            return
        self._outcome.latencies_seconds.append(time.monotonic() - self._due_at)
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            line = self._buffer[9:12]
            self._outcome.refusals[line] = self._outcome.refusals.get(line, 0) + 1
        self._buffer = b""
        self._on_answer(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc or ConnectionResetError("closed")
        self._on_answer(self)

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()


def post(path: str, token: str, body: bytes, method: str = "POST") -> bytes:
    """Return a request as bytes."""
    return (
        f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


def closed_loop(
    port: int | Sequence[int], requests: list[Iterator[bytes]], seconds: float = 1e9
) -> Outcome:
    """Send from one connection for each iterator, each as fast as it is answered.

    Ends when the iterators are used up, or after a time. Of several ports the connections take
    turns.
    """
    ports = itertools.cycle([port] if isinstance(port, int) else port)

    async def run() -> Outcome:
        loop, outcome = asyncio.get_running_loop(), Outcome()
        finished = asyncio.Event()
        source: dict[_Connection, Iterator[bytes]] = {}
        started_at = time.monotonic()
        ends_at = started_at + seconds

        def on_answer(connection: _Connection) -> None:
            now = time.monotonic()
            request = None if connection.lost or now > ends_at else next(source[connection], None)
            if request is not None:
                connection.send(request, now)
                return
            source.pop(connection, None)
            if not source:
                finished.set()

        for iterator in requests:
            _, connection = await loop.create_connection(
                lambda: _Connection(outcome, on_answer), "127.0.0.1", next(ports)
            )
            source[connection] = iterator
        connections = list(source)
        started_at = time.monotonic()
        ends_at = started_at + seconds
        for connection in connections:
            on_answer(connection)
        await finished.wait()
        outcome.seconds = time.monotonic() - started_at
        _close(connections)
        return outcome

    return _run(run)


def open_loop(port: int, requests: Iterator[bytes], per_second: float, seconds: float) -> Outcome:
    """Send at a fixed rate whatever the answers do; latencies count from when each was due."""

    async def run() -> Outcome:
        loop, outcome = asyncio.get_running_loop(), Outcome()
        free: list[_Connection] = []
        connections: list[_Connection] = []
        waiting: list[float] = []

        def on_answer(connection: _Connection) -> None:
            if waiting:
                connection.send(next(requests), waiting.pop(0))
            else:
                free.append(connection)

        for _ in range(64):
            _, connection = await loop.create_connection(
                lambda: _Connection(outcome, on_answer), "127.0.0.1", port
            )
            connections.append(connection)
            free.append(connection)
        started_at = time.monotonic()
        total = int(per_second * seconds)
        sent = 0
        while sent < total:
            now = time.monotonic()
            while sent < total and (due_at := started_at + sent / per_second) <= now:
                sent += 1
                if free:
                    free.pop().send(next(requests), due_at)
                else:
                    waiting.append(due_at)
            await asyncio.sleep(max(0.0, started_at + sent / per_second - time.monotonic()))
        while len(outcome.latencies_seconds) < total and not any(c.lost for c in connections):
            await asyncio.sleep(0.01)
        outcome.seconds = time.monotonic() - started_at
        _close(connections)
        return outcome

    return _run(run)


def _close(connections: list[_Connection]) -> None:
    broken = [connection.lost for connection in connections if connection.lost]
    for connection in connections:
        connection.close()
    if broken:
        raise RuntimeError(f"{len(broken)} connections broke: {broken[0]!r}")


def _run(main: Callable[[], Awaitable[_T]]) -> _T:
    async def as_coroutine() -> _T:
        return await main()

    return uvloop.run(as_coroutine())
