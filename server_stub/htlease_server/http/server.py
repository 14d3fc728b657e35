"""HTTP/1.1 connections: parsed by httptools, answered in order, bounded in time and in memory.

A framework's empty request costs three times as much processor time as this does
(`docs/decisions`), and none of them closes a connection whose request comes a byte a minute.

One request of a connection is parsed, and answered, at a time. What follows it waits as the bytes
that came, READ_BYTES at most, and nothing more is read meanwhile. So there is no queue of
requests, and no answer begins while the one before it has not been read. At every instant a
connection has a deadline.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable
from typing import cast

from htlease.rules import messages as m
from htlease_server.http.messages import Answer, Request, encoded, problem
from htlease_server.http.request_parser import RequestParser
from htlease_server.logs import note

#: How much of one connection is read at once, and so how much can wait for its turn.
READ_BYTES = 16 * 1024
#: From a request's first byte to its last; also from connecting to the first byte.
REQUEST_SECONDS = 30.0
#: From a request's last byte to its answer; a database that fails over takes a minute.
ANSWER_SECONDS = 120.0
#: How long an answer may wait for a client that does not read it, and by how much longer a large
#: one may.
UNREAD_SECONDS = 30.0
UNREAD_BYTES_PER_SECOND = 32 * 1024
#: Longer than clients wait between two renewals, so that they keep their connection.
KEEP_ALIVE_SECONDS = 75.0
#: A client that is still sending would see a broken connection instead of the refusal, so what it
#: sends is thrown away for a moment.
LINGER_SECONDS = 5.0
#: Requests not answered yet and answers not read yet, of all connections together.
HELD_MAX_BYTES = 64 * 1024 * 1024
#: What is served whatever is held (a renewal has a quarter of it), and what of an answer may be
#: unread without being counted.
_SMALL_BYTES = 4096
#: Who has kept memory for so long without end gives it up when there is no more.
SLOW_SECONDS = 2.0
#: How long the event loop works on what waits for its turn before it looks around again.
TURN_SECONDS = 0.002
RETRY_AFTER_SECONDS = 2.0
#: Idle connections closed at once when there is room for no more, as a part of all.
_EVICTED_PART = 0.01
#: Connections beyond the last that are told so; whoever comes then is aborted.
_REJECTED_AT_ONCE = 20
#: Connections aborted before others have their turn.
_ABORTED_AT_ONCE = 500
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_TOO_MANY = m.Rejection(
    "overloaded",
    "the server has as many connections as it may have",
    retry_after_seconds=RETRY_AFTER_SECONDS,
)
_TOO_FULL = m.Rejection(
    "overloaded",
    "the server holds as many requests as its memory is for",
    retry_after_seconds=RETRY_AFTER_SECONDS,
)


class HttpServer:
    """All connections of a server, and what they may take together.

    `application` is made once; it is called with each complete request and has to call the
    connection's `answer` once. `call_soon` is the event loop's.
    """

    def __init__(
        self,
        application: Callable[[HttpServer], Callable[[Request, Connection], None]],
        now: Callable[[], float],
        connections_max: int,
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self.now = now
        self._call_soon = call_soon
        #: Where every connection reads into, one after the other.
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.connections: set[Connection] = set()
        #: Those that owe nothing and are owed nothing, longest idle first.
        self.idle: dict[Connection, None] = {}
        #: Those that keep memory until their client sends or reads on -> since when.
        self.slow: dict[Connection, float] = {}
        self.connections_max = connections_max
        self.held_bytes = 0
        #: How many connections found no room, and how many idle ones were closed to make some.
        self.rejected = 0
        self.evicted = 0
        #: How many requests found no room in memory.
        self.refused_for_memory = 0
        self.is_closing = False
        self._waiting: deque[Connection] = deque()
        self.handle = application(self)

    def has_room(self) -> bool:
        """Tell whether one more connection fits, after closing idle or slow ones if need be."""
        if len(self.connections) < self.connections_max:
            return True
        before = self.now() - SLOW_SECONDS
        slow = itertools.takewhile(lambda each: self.slow[each] < before, self.slow)
        count = max(1, int(self.connections_max * _EVICTED_PART))
        found = list(itertools.islice(itertools.chain(self.idle, slow), count))
        for connection in found:
            connection.abort()
            self.evicted += 1
        if found:
            return True
        self.rejected += 1
        return False

    def has_memory(self) -> bool:
        """Tell whether what is held fits, after aborting the slowest if need be."""
        before = self.now() - SLOW_SECONDS
        while self.held_bytes > HELD_MAX_BYTES:
            connection, since = next(iter(self.slow.items()), (None, before))
            if connection is None or since >= before:
                return False
            connection.abort()
            self.evicted += 1
        return True

    def queue(self, connection: Connection) -> None:
        """Let a connection go on when others have had their turn."""
        self._waiting.append(connection)
        if len(self._waiting) == 1:
            self._call_soon(self._take_turns)

    def _take_turns(self) -> None:
        until = self.now() + TURN_SECONDS
        for _ in range(len(self._waiting)):
            # It stays at the head meanwhile, so that nobody asks for another turn of all.
            connection = self._waiting[0]
            try:
                connection.resume()
            except Exception:  # a mistake of ours; the others have to have their turn
                note(logging.ERROR, "reading a request failed", trace=True)
                connection.abort()
            self._waiting.popleft()
            if self.now() >= until:
                break
        if self._waiting:
            self._call_soon(self._take_turns)

    def sweep(self) -> None:
        """Abort connections that have taken too long."""
        now = self.now()
        late = [each for each in self.connections if each.deadline_at < now]
        for connection in late[:_ABORTED_AT_ONCE]:
            connection.abort()
        if len(late) > _ABORTED_AT_ONCE:
            self._call_soon(self.sweep)

    def close(self) -> None:
        """Close idle connections now, and the others with their answer."""
        self.is_closing = True
        for connection in list(self.idle):
            connection.abort()


class Connection(asyncio.BufferedProtocol):
    """One client's connection."""

    __slots__ = (
        "_held_bytes",
        "_is_ended",
        "_is_lingering",
        "_is_paused",
        "_parser",
        "_server",
        "_transport",
        "_unparsed",
        "_unread_bytes",
        "deadline_at",
        "request",
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        #: The request that is being answered, if any.
        self.request: Request | None = None
        self.deadline_at = server.now() + REQUEST_SECONDS
        self._parser = RequestParser(self._say_continue)
        #: What came after the requests that the parser has.
        self._unparsed = b""
        self._held_bytes = self._unread_bytes = 0
        #: The client sends no more; nothing is read for now; nothing counts any more.
        self._is_ended = self._is_paused = self._is_lingering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        # What the kernel does not take is counted, and stops what would come next. Small answers
        # are sent together, at the end of the loop's round: sent one by one they wake clients
        # whose requests then come one by one, which makes for small batches.
        self._transport.set_write_buffer_limits(high=_SMALL_BYTES, low=0)
        server = self._server
        has_room = server.has_room()
        server.connections.add(self)
        if has_room:
            server.idle[self] = None
        elif len(server.connections) > server.connections_max + _REJECTED_AT_ONCE:
            self.abort()
        else:
            self._refuse(_TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()

    def abort(self) -> None:
        """Close without a word."""
        self._forget()
        self._transport.abort()

    def _forget(self) -> None:
        """Let go of all that is kept for this connection; nothing is answered any more."""
        server = self._server
        server.connections.discard(self)
        self._drop_input()
        server.held_bytes -= self._unread_bytes
        self._unread_bytes = 0
        self.request = None

    def _drop_input(self) -> None:
        server = self._server
        server.idle.pop(self, None)
        server.slow.pop(self, None)
        server.held_bytes -= self._held_bytes
        self._held_bytes = 0
        self._unparsed = b""
        self._parser.close()
        self._is_lingering = True

    # ------------------------------------------------------------ what comes

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._is_lingering:
            self.received(bytes(self._server.buffer[:nbytes]))

    def eof_received(self) -> bool:
        """Tell whether the client, which sends no more, still has answers to come."""
        self._is_ended = True
        return self._owes_answer or bool(self._unparsed or self._unread_bytes)

    @property
    def _owes_answer(self) -> bool:
        parser = self._parser
        return self.request is not None or bool(parser.ready) or parser.refusal is not None

    def received(self, data: bytes) -> None:
        """Take what the client has sent."""
        server, size = self._server, len(data)
        if server.idle.pop(self, 0) is None:
            self.deadline_at = server.now() + REQUEST_SECONDS
        self._held_bytes += size
        server.held_bytes += size
        if self._owes_answer or self._unparsed or self._unread_bytes:
            self._unparsed += data
            self._pause_reading()
            if not server.has_memory():
                self.abort()
            return
        self._parse(data)
        if size == READ_BYTES and self._parser.is_in_message and not self._is_lingering:
            # More of it is there already; others first.
            self._pause_reading()
            server.queue(self)

    def resume(self) -> None:
        """Take up what has waited for its turn."""
        if self._is_lingering or self.request is not None or self._unread_bytes:
            return
        data, self._unparsed = self._unparsed, b""
        if data or self._owes_answer:
            self.deadline_at = self._server.now() + REQUEST_SECONDS
            self._parse(data)
        if not (self._unparsed or self._owes_answer):
            self._resume_reading()

    def _parse(self, data: bytes) -> None:
        """Parse up to the end of a request and begin with it; keep the rest as it is."""
        parser, server = self._parser, self._server
        self._unparsed = parser.parse(data)
        if parser.ready and (self._held_bytes <= _SMALL_BYTES or server.has_memory()):
            request = parser.ready.popleft()
            if self._unparsed or parser.ready:
                self._pause_reading()
            server.slow.pop(self, None)
            self.request = request
            self.deadline_at = server.now() + ANSWER_SECONDS
            server.handle(request, self)
        elif parser.refusal is not None:
            self._refuse(parser.refusal)
        elif not parser.ready and server.has_memory():
            server.slow.setdefault(self, server.now())
        else:
            self._refuse(_TOO_FULL)

    def _say_continue(self) -> None:
        self._transport.write(_CONTINUE)

    # ------------------------------------------------------------ what goes

    def answer(self, answer: Answer) -> None:
        """Answer the request that is at hand."""
        request, server = self.request, self._server
        if request is None:
            return
        self.request = None
        stays = request.stays and not server.is_closing
        self._transport.write(encoded(answer, request, stays))
        if self._unread_bytes and not server.has_memory():
            self.abort()
        elif stays:
            self._settle()
        else:
            self._close()

    def pause_writing(self) -> None:
        server = self._server
        size = self._transport.get_write_buffer_size()
        self._unread_bytes += size
        server.held_bytes += size
        if not self._is_lingering:
            self.deadline_at = server.now() + UNREAD_SECONDS + size / UNREAD_BYTES_PER_SECOND
            server.slow[self] = server.now()

    def resume_writing(self) -> None:
        server = self._server
        server.held_bytes -= self._unread_bytes
        self._unread_bytes = 0
        if not (self._is_lingering or self._parser.is_in_message) and self.request is None:
            server.slow.pop(self, None)
            self._settle()

    def _settle(self) -> None:
        """Turn to what comes after an answer."""
        server, rest = self._server, len(self._unparsed)
        if not self._parser.is_in_message:
            server.held_bytes -= self._held_bytes - rest
            self._held_bytes = rest
        if self._unread_bytes:
            return
        if rest or self._owes_answer:
            self.deadline_at = server.now() + REQUEST_SECONDS
            server.queue(self)
        elif self._is_ended:
            self._close()
        elif self._parser.is_in_message:
            self.deadline_at = server.now() + REQUEST_SECONDS
            self._resume_reading()
        else:
            self.deadline_at = server.now() + KEEP_ALIVE_SECONDS
            server.idle[self] = None
            self._resume_reading()

    def _refuse(self, rejection: m.Rejection) -> None:
        """Answer what is not a whole request, and end the connection."""
        if rejection is _TOO_FULL:
            self._server.refused_for_memory += 1
        self._transport.write(encoded(problem(rejection), None, stays=False))
        self._close(is_sending=True)

    def _close(self, is_sending: bool = False) -> None:
        """End the connection once what was written has been read."""
        transport = self._transport
        is_sending = is_sending or self._is_paused
        unread_until = self.deadline_at if self._unread_bytes else 0.0
        self.deadline_at = max(unread_until, self._server.now() + LINGER_SECONDS)
        self._drop_input()
        if is_sending and not self._is_ended and transport.can_write_eof():
            self._resume_reading()
            transport.write_eof()
        else:
            transport.close()

    def _pause_reading(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_paused and not self._is_ended:
            self._is_paused = False
            self._transport.resume_reading()
