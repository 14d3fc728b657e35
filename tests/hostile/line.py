"""One connection of a hostile client, and a strict reader of what comes back on it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
from typing import NamedTuple

_HEAD = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n((?:[^\r\n:]+: ?[^\r\n]*\r\n)*)\r\n")
_LENGTH = re.compile(rb"content-length: ?(\d+)\r\n", re.IGNORECASE)
#: More is no head of ours, nor of a proxy's.
_HEAD_MAX_BYTES = 16 * 1024


class NoAnswer(Exception):
    """What came back is not a row of whole answers."""


class Answer(NamedTuple):
    """One answer."""

    status: int
    body: bytes


class Reader:
    """Takes answers off the bytes that came."""

    def __init__(self) -> None:
        self._held = b""
        self.answers: list[Answer] = []

    def feed(self, data: bytes) -> None:
        """Take more bytes; raises NoAnswer."""
        self._held += data
        while self._held:
            head = _HEAD.match(self._held)
            if head is None:
                is_long = len(self._held) > _HEAD_MAX_BYTES
                if is_long or not b"HTTP/1.1 ".startswith(self._held[:9]):
                    raise NoAnswer(f"no head: {self._held[:200]!r}")
                return
            if head[1] == b"100":
                self._held = self._held[head.end() :]
                continue
            length = _LENGTH.search(head[2])
            if length is None:
                raise NoAnswer(f"no length: {head[0]!r}")
            end = head.end() + int(length[1])
            if len(self._held) < end:
                return
            self.answers.append(Answer(int(head[1]), self._held[head.end() : end]))
            self._held = self._held[end:]


class Line:
    """A connection that a play drives; everything random comes from `draw`."""

    def __init__(self, address: tuple[str, int], draw: random.Random) -> None:
        self._address = address
        self.draw = draw
        self._reader = Reader()
        #: The server has ended it.
        self.is_closed = False
        self._socket: socket.socket | None = None

    @property
    def answers(self) -> list[Answer]:
        """What came back so far."""
        return self._reader.answers

    async def open(self) -> None:
        """Connect, with a small window if chance will have it."""
        line = socket.socket()
        line.setblocking(False)
        if self.draw.random() < 0.3:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.draw.choice([1024, 8192]))
        self._socket = line
        try:
            await asyncio.get_running_loop().sock_connect(line, self._address)
        except OSError:
            self.is_closed = True

    async def send(self, data: bytes) -> None:
        """Send in one piece, a few, or many, with pauses between."""
        draw = self.draw
        most = draw.choice([len(data), len(data), 4096, 100, 1 if len(data) < 400 else 1000])
        at = 0
        while at < len(data) and not self.is_closed:
            size = draw.randint(1, max(1, most))
            await self._send_piece(data[at : at + size])
            at += size
            if most < len(data) and draw.random() < 0.1:
                await asyncio.sleep(draw.random() * 0.02)

    async def _send_piece(self, data: bytes) -> None:
        assert self._socket is not None
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self._socket, data), 5)
        except (OSError, asyncio.TimeoutError):
            # The server reads no more of it; what it has to say may still come.
            self.is_closed = True

    async def read(self, seconds: float, answers: int | None = None) -> None:
        """Read until so many answers are there, the server has closed, or is silent for so long."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while answers is None or len(self.answers) < answers:
            left = until - loop.time()
            if left <= 0:
                return
            try:
                size = self.draw.choice([65536, 65536, 2000])
                data = await asyncio.wait_for(loop.sock_recv(self._socket, size), left)
            except asyncio.TimeoutError:
                return
            except OSError:
                self.is_closed = True
                return
            if not data:
                self.is_closed = True
                return
            self._reader.feed(data)
            until = loop.time() + seconds if answers is not None else until

    def end_sending(self) -> None:
        """Close one half."""
        assert self._socket is not None
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break off with a RST."""
        assert self._socket is not None
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Let go."""
        if self._socket is not None:
            self._socket.close()
