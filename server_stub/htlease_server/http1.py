"""HTTP/1.1 connections: parsed by httptools, answered in order, bounded in time and in memory.

A framework's empty request costs three times as much processor time as this does
(`docs/decisions`), and none of them closes a connection whose request comes a byte a minute.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import httptools

from htlease import messages as m
from htlease.protocol import BODY_MAX_BYTES
from htlease_server.wire import Answer, Request, problem

#: Request line and headers; a SciToken has a few KiB.
HEAD_MAX_BYTES = 32 * 1024
#: From a request's first byte to its last.
REQUEST_SECONDS = 30.0
#: How long an answer may wait for a client that does not read it.
UNREAD_SECONDS = 30.0
#: Longer than clients wait between two renewals, so that they keep their connection.
KEEP_ALIVE_SECONDS = 75.0
#: A client that is still sending would see a broken connection instead of the refusal, so what it
#: sends is thrown away for a moment.
LINGER_SECONDS = 5.0
#: Bodies not answered yet and answers not read yet, of all connections together.
HELD_MAX_BYTES = 64 * 1024 * 1024
RETRY_AFTER_SECONDS = 2.0
#: Idle connections closed at once when there is room for no more, as a part of all.
_EVICTED_PART = 0.01

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
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
_HEAD_TOO_LARGE = m.Rejection(
    "too-large", f"request line and headers have more than {HEAD_MAX_BYTES} bytes"
)
_BODY_TOO_LARGE = m.Rejection("too-large", f"the body has more than {BODY_MAX_BYTES} bytes")
_NO_HTTP = m.Rejection("invalid", "this is not a request of HTTP/1.1", field="request")


class Hall:
    """All connections of a server, and what they may take together.

    `application` is made once; it is called with each complete request and has to call the
    connection's `answer` once.
    """

    def __init__(
        self,
        application: Callable[[Hall], Callable[[Request, Connection], None]],
        now: Callable[[], float],
        connections_max: int,
    ) -> None:
        self.now = now
        self.connections: set[Connection] = set()
        self.connections_max = connections_max
        self.held_bytes = 0
        #: How many connections found no room, and how many idle ones were closed to make some.
        self.turned_away = 0
        self.evicted = 0
        #: How many requests found no room in memory.
        self.overfilled = 0
        self.is_closing = False
        self.handle = application(self)

    def has_room(self) -> bool:
        """Tell whether one more connection fits, after closing idle ones if need be."""
        if len(self.connections) < self.connections_max:
            return True
        idle = [connection for connection in self.connections if connection.is_idle]
        count = max(1, int(self.connections_max * _EVICTED_PART))
        for connection in heapq.nsmallest(count, idle, key=lambda each: each.deadline_at):
            connection.hang_up()
            self.connections.discard(connection)
            self.evicted += 1
        if idle:
            return True
        self.turned_away += 1
        return False

    def sweep(self) -> None:
        """Hang up on whoever has taken too long."""
        now = self.now()
        for connection in [each for each in self.connections if each.deadline_at < now]:
            connection.hang_up()

    def close(self) -> None:
        """Close idle connections now, and the others with their answer."""
        self.is_closing = True
        for connection in list(self.connections):
            if connection.is_idle:
                connection.hang_up()


class Connection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_body",
        "_hall",
        "_has_head",
        "_head_bytes",
        "_headers",
        "_held_bytes",
        "_is_in_message",
        "_is_lingering",
        "_parser",
        "_pipeline",
        "_refusal",
        "_target",
        "_transport",
        "_unparsed_bytes",
        "_unread_bytes",
        "deadline_at",
        "is_idle",
        "request",
    )

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        #: The request that is being answered, if any.
        self.request: Request | None = None
        #: Nothing was sent that is not answered.
        self.is_idle = True
        self.deadline_at = hall.now() + KEEP_ALIVE_SECONDS
        self._pipeline: deque[Request] | None = None
        #: Of what came after the requests that are being answered; it waits for its turn.
        self._refusal: m.Rejection | None = None
        self._headers: dict[bytes, bytes] = {}
        self._target = b""
        self._body: bytes | bytearray = b""
        self._is_in_message = self._has_head = False
        self._head_bytes = self._unparsed_bytes = 0
        self._held_bytes = self._unread_bytes = 0
        self._is_lingering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        has_room = self._hall.has_room()
        self._hall.connections.add(self)
        if not has_room:
            self._refuse(_TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hall.connections.discard(self)
        self._hall.held_bytes -= self._held_bytes + self._unread_bytes
        self._held_bytes = self._unread_bytes = 0
        self._pipeline = self.request = None
        self._body = b""
        # The parser knows this connection: without this, both and all that they hold would wait
        # for the garbage collector, which comes seldom.
        del self._parser

    def pause_writing(self) -> None:
        self._unread_bytes = self._transport.get_write_buffer_size()
        self._hall.held_bytes += self._unread_bytes
        self.deadline_at = self._hall.now() + UNREAD_SECONDS
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._hall.held_bytes -= self._unread_bytes
        self._unread_bytes = 0
        if not self._is_lingering:
            self.deadline_at = self._hall.now() + KEEP_ALIVE_SECONDS
            self._transport.resume_reading()

    def hang_up(self) -> None:
        """Close without a word."""
        self._transport.abort()

    # ------------------------------------------------------------ what comes

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self.is_idle:
            self.is_idle = False
            self.deadline_at = self._hall.now() + REQUEST_SECONDS
        # What came with the end of another request is not all of this one's.
        is_begun = self._is_in_message
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # not offered, so the request has been taken as it is
        except httptools.HttpParserError:
            self._refuse(_NO_HTTP)
            return
        if is_begun and self._is_in_message and not self._has_head:
            # The parser hands a header over when it is complete, however long it is.
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > HEAD_MAX_BYTES:
                self._refuse(_HEAD_TOO_LARGE)

    @property
    def _is_deaf(self) -> bool:
        return self._is_lingering or self._refusal is not None

    def on_message_begin(self) -> None:
        self._headers = {}
        self._target = self._body = b""
        self._is_in_message = True
        self._has_head = False
        self._head_bytes = self._unparsed_bytes = 0

    def on_url(self, part: bytes) -> None:
        self._add_to_head(len(part))
        if not self._is_deaf:
            self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:  # a trailer, which nobody on the way has looked at as a header
            return
        self._add_to_head(len(name) + len(value) + len(b": \r\n"))
        if self._is_deaf:
            return
        name = name.lower()
        before = self._headers.get(name)
        # Two tokens are none: whoever is asked which one counts may answer otherwise.
        self._headers[name] = value if before is None else b"%b, %b" % (before, value)

    def _add_to_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > HEAD_MAX_BYTES:
            self._refuse(_HEAD_TOO_LARGE)

    def on_headers_complete(self) -> None:
        self._has_head = True
        headers = self._headers
        if self._is_deaf:
            return
        if int(headers.get(b"content-length", 0)) > BODY_MAX_BYTES:
            self._refuse(_BODY_TOO_LARGE)
        elif b"expect" in headers and headers[b"expect"].lower() == b"100-continue":
            if self.request is None:
                self._transport.write(_CONTINUE)

    def on_body(self, part: bytes) -> None:
        if self._is_deaf:
            return
        hall, size = self._hall, len(part)
        self._held_bytes += size
        hall.held_bytes += size
        if self._body:
            self._body = bytearray(self._body) if isinstance(self._body, bytes) else self._body
            self._body += part
        else:
            self._body = part
        if len(self._body) > BODY_MAX_BYTES:
            self._refuse(_BODY_TOO_LARGE)
        elif hall.held_bytes > HELD_MAX_BYTES:
            hall.overfilled += 1
            self._refuse(_TOO_FULL)

    def on_message_complete(self) -> None:
        if self._is_deaf:
            return
        parser = self._parser
        request = Request(
            parser.get_method(),
            self._target,
            self._headers,
            bytes(self._body),
            parser.should_keep_alive() and not parser.should_upgrade(),
        )
        self._body = b""
        self._is_in_message = False
        if self.request is None:
            self._begin(request)
            return
        if self._pipeline is None:
            self._pipeline = deque()
        self._pipeline.append(request)
        self._transport.pause_reading()

    def _begin(self, request: Request) -> None:
        self.request = request
        self.deadline_at = math.inf
        self._hall.handle(request, self)

    # ------------------------------------------------------------ what goes

    def answer(self, answer: Answer) -> None:
        """Answer the request that is at hand."""
        request, hall, transport = self.request, self._hall, self._transport
        if request is None or transport.is_closing():
            return
        self.request = None
        stays = request.stays and not hall.is_closing
        transport.write(_encoded(answer, request, stays))
        if not stays:
            transport.close()
            return
        if self._pipeline:
            following = self._pipeline.popleft()
            if not self._pipeline and not self._unread_bytes:
                transport.resume_reading()
            self._begin(following)
            return
        if self._refusal is not None:
            self._refuse(self._refusal)
            return
        hall.held_bytes -= self._held_bytes
        self._held_bytes = 0
        if not self._unread_bytes:
            self.is_idle = not self._is_in_message
            self.deadline_at = hall.now() + KEEP_ALIVE_SECONDS

    def _refuse(self, rejection: m.Rejection) -> None:
        """Answer what is not a whole request, and end the connection."""
        if self._is_lingering:
            return
        if self.request is not None:
            # Its answer comes first, or its sender would take this one for it.
            self._refusal = rejection
            self._transport.pause_reading()
            return
        self._is_lingering = True
        self.is_idle = False
        self._pipeline = None
        self._body = b""
        self._hall.held_bytes -= self._held_bytes
        self._held_bytes = 0
        self._transport.resume_reading()
        self._transport.write(_encoded(problem(rejection), None, stays=False))
        self.deadline_at = self._hall.now() + LINGER_SECONDS
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()


def _encoded(answer: Answer, request: Request | None, stays: bool) -> bytes:
    body = answer.body
    head = b"%bcontent-type: %b\r\ncontent-length: %d\r\n" % (
        _STATUS_LINES[answer.status],
        answer.content_type,
        len(body),
    )
    for name, value in answer.headers:
        head += b"%b: %b\r\n" % (name, value)
    if not stays:
        head += b"connection: close\r\n"
    elif request is not None and b"connection" in request.headers:
        head += b"connection: keep-alive\r\n"  # HTTP/1.0 has to be told
    if request is not None and request.method == b"HEAD":
        body = b""
    return b"%b\r\n%b" % (head, body)
