"""Clients that do everything right while others do not: what they get, and how long it takes.

On a machine with other work, wall time tells little of a server. So its delay is taken in its own
processor time too: what its event loop worked between a request and the answer to it.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

from tests.hostile.line import Reader
from tests.serving import ServerProcess

NONCE = "nonce-of-a-witness-0123456789"
WORKFLOW = "/v1/workflows/witnesses"
ANSWER_SECONDS = 20.0
_PAUSE_SECONDS = 0.03
_SAMPLE_SECONDS = 0.1


class Seen:
    """What the witnesses saw."""

    def __init__(self) -> None:
        self.wall_seconds: list[float] = []
        self.loop_seconds: list[float] = []
        self.resident_mib: list[float] = []
        self.wrong: list[str] = []

    def told(self) -> str:
        """Say it in one line."""
        return (
            f"{len(self.wall_seconds)} answers; event loop busy before one: "
            f"{_told(self.loop_seconds)}; wall: {_told(self.wall_seconds)}; "
            f"memory at most {max(self.resident_mib, default=0):.0f} MiB"
        )


def part(values: Sequence[float], share: float) -> float:
    """Return the value that so large a share is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _told(values: Sequence[float]) -> str:
    shares = (0.5, 0.99, 1.0)
    return ", ".join(f"{share:.0%} {part(values, share) * 1000:.1f} ms" for share in shares)


def loop_busy_seconds(server: ServerProcess) -> float:
    """Return for how long the server's first thread, its event loop, has been on a processor."""
    return int(Path(f"/proc/{server.pid}/task/{server.pid}/schedstat").read_text().split()[0]) / 1e9


class Witnesses:
    """Holders that renew over connections of their own, which the server has to keep."""

    def __init__(
        self, server: ServerProcess, number: int = 8, address: tuple[str, int] | None = None
    ) -> None:
        self._server = server
        self._number = number
        host, _, port = server.web_url.removeprefix("http://").partition(":")
        self._address = address or (host, int(port))
        self._is_over = False
        self.seen = Seen()

    async def watch(self) -> None:
        """Renew until `end` is called."""
        await asyncio.gather(self._sample(), *(self._renew(each) for each in range(self._number)))

    def end(self) -> None:
        """Let all of them end."""
        self._is_over = True

    async def _sample(self) -> None:
        while not self._is_over:
            self.seen.resident_mib.append(self._server.resident_mib)
            await asyncio.sleep(_SAMPLE_SECONDS)

    async def _renew(self, number: int) -> None:
        subjob = f"{WORKFLOW}/subjobs/s-{number}"
        reader, writer = await asyncio.open_connection(*self._address)
        answers = Reader()
        grant = {"nonce": NONCE, "ttl_seconds": 3600}
        try:
            await self._ask(reader, writer, answers, f"{subjob}/acquire", grant, "a")
            count = 0
            while not self._is_over:
                count += 1
                body = {"fence": 1, "nonce": NONCE}
                busy, began = loop_busy_seconds(self._server), time.monotonic()
                await self._ask(reader, writer, answers, f"{subjob}/renew", body, f"r{count}")
                self.seen.loop_seconds.append(loop_busy_seconds(self._server) - busy)
                self.seen.wall_seconds.append(time.monotonic() - began)
                await asyncio.sleep(_PAUSE_SECONDS)
        except (OSError, EOFError, asyncio.TimeoutError) as problem:
            self.seen.wrong.append(f"witness {number}: {problem!r}")
        finally:
            writer.close()

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answers: Reader,
        path: str,
        fields: dict[str, object],
        request_id: str,
    ) -> None:
        body = json.dumps({**fields, "request_id": request_id}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            f"Authorization: Bearer {self._server.admin_token}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        before = len(answers.answers)
        until = time.monotonic() + ANSWER_SECONDS
        while len(answers.answers) == before:
            left = max(0.0, until - time.monotonic())
            data = await asyncio.wait_for(reader.read(65536), left)
            if not data:
                raise EOFError("the server closed the connection")
            answers.feed(data)
        answer = answers.answers.pop()
        if answer.status != 200:
            self.seen.wrong.append(f"{path} was answered {answer}")


def open_connections(server: ServerProcess) -> int:
    """Return how many connections the server has, this one apart."""
    import urllib.request

    with urllib.request.urlopen(f"{server.web_url}/metrics", timeout=30) as answer:
        found = re.search(r"^htlease_connections (\d+)", answer.read().decode(), re.M)
    assert found is not None
    return int(found[1]) - 1
