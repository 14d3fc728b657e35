"""A plain TCP balancer: it knows nothing of HTTP, and takes the next server when one is gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Sequence

_CONNECT_SECONDS = 2.0
_CHUNK_BYTES = 65536


class Balancer:
    """Passes each connection on to one of several addresses, in a thread of its own."""

    def __init__(self, servers: Sequence[tuple[str, int]]) -> None:
        self._servers = servers
        self._turns = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._listening = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0)
        )
        self.port: int = self._listening.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections, and cut those that are there."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._listening.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(self._turns)
        for number in range(len(self._servers)):
            host, port = self._servers[(first + number) % len(self._servers)]
            try:
                there = await asyncio.wait_for(
                    asyncio.open_connection(host, port), _CONNECT_SECONDS
                )
            except (OSError, asyncio.TimeoutError):
                continue
            # When one side is gone, so is the other.
            ways = [_pass(reader, there[1]), _pass(there[0], writer)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                there[1].close()
            break
        writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
