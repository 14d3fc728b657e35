"""The requests in the bytes of one connection: httptools parses, and what it holds is bounded.

Nothing here waits, reads or writes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import httptools

from htlease.rules import messages as m
from htlease.wire.protocol import BODY_MAX_BYTES
from htlease_server.http import request_head
from htlease_server.http.messages import Request
from htlease_server.http.request_head import FIELDS_MAX, HEAD_MAX_BYTES, HEAD_TOO_LARGE, NO_HTTP

#: Empty lines before a request (RFC 9112 2.2), in bytes.
_BLANK_MAX_BYTES = 16
#: How much of a body in chunks is parsed at once, since nobody knows where it ends.
_FEED_BYTES = 1024
#: What the lines between the chunks of a body may take, in times of the body.
_CHUNK_LINES_PART = 16

_BLANK_LINE = b"\r\n\r\n"
_BODY_TOO_LARGE = m.Rejection("too-large", f"the body has more than {BODY_MAX_BYTES} bytes")
_LINES_TOO_LARGE = m.Rejection("too-large", "the body has more lines around it than belong there")


class RequestParser:
    """One connection's requests; `say_continue` is called where a client waits for a 100."""

    __slots__ = (
        "_blank_bytes",
        "_body",
        "_body_left_bytes",
        "_has_head",
        "_has_two_hosts",
        "_headers",
        "_is_upgrade",
        "_line_bytes",
        "_lines_at_once_bytes",
        "_parser",
        "_repeated",
        "_say_continue",
        "_target",
        "is_in_message",
        "ready",
        "refusal",
    )

    _headers: dict[bytes, bytes]
    _body: bytes | bytearray

    def __init__(self, say_continue: Callable[[], None]) -> None:
        self._say_continue = say_continue
        #: Complete requests: one, or a few if the end of one was the begin of what came.
        self.ready: deque[Request] = deque()
        #: Why what follows them is no request; nothing more is parsed then.
        self.refusal: m.Rejection | None = None
        self._blank_bytes = 0
        self._begin_head()
        #: The begin of a request has come, and not yet its end.
        self.is_in_message = False
        self._parser: Any = httptools.HttpRequestParser(self)

    def close(self) -> None:
        """Let go of everything.

        httptools knows this parser: without this, both and all that they hold would wait for the
        garbage collector, which comes seldom.
        """
        self._parser = None
        self.ready.clear()
        self.refusal = None
        self._body = b""
        self._headers = {}

    def parse(self, data: bytes) -> bytes:
        """Parse up to the end of a request and return the rest as it is."""
        at, size = 0, len(data)
        if not self.is_in_message and data.count(_BLANK_LINE) == 1:
            # One head, so one request at most; what is behind it is its body. The common case.
            self._feed(data)
            at = size
        while at < size and not self.ready and self.refusal is None:
            end = self._boundary(data, at)
            self._feed(data if end - at == size else data[at:end])
            at = end
        if not self.ready and self.refusal is None:
            self._check_begun(size)
        return data[at:] if at < size else b""

    def _boundary(self, data: bytes, at: int) -> int:
        """Return up to where to parse next: to the end of a request, as far as it can be told."""
        if self._body_left_bytes:
            return min(at + self._body_left_bytes, len(data))
        if self._has_head:  # a body in chunks
            return min(at + _FEED_BYTES, len(data))
        blank = data.find(_BLANK_LINE, at)
        return len(data) if blank < 0 else blank + 4

    def _feed(self, data: bytes) -> None:
        self._line_bytes += len(data)
        self._lines_at_once_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            method = self._parser.get_method()
            self._parser = httptools.HttpRequestParser(self)
            if self._is_upgrade:
                head = request_head.without_upgrade(method, self._target, self._headers)
                self._begin_head()
                self._feed(head)
            rest = data[upgrade.args[0] :]
            if rest:
                self._feed(rest)
        except httptools.HttpParserError:
            self._refuse(NO_HTTP)

    def _check_begun(self, size_bytes: int) -> None:
        """Keep the begin of a request within bounds."""
        if not self.is_in_message:
            self._blank_bytes += size_bytes
            if self._blank_bytes > _BLANK_MAX_BYTES:
                self._refuse(NO_HTTP)
        elif not self._has_head:
            # The parser hands a header over when it is complete, however long it is.
            if self._line_bytes > HEAD_MAX_BYTES:
                self._refuse(HEAD_TOO_LARGE)
        elif (
            # The same holds for a trailer, and for what may stand behind a chunk's size.
            self._lines_at_once_bytes > HEAD_MAX_BYTES
            or self._line_bytes > HEAD_MAX_BYTES + _CHUNK_LINES_PART * len(self._body)
        ):
            self._refuse(_LINES_TOO_LARGE)

    def _refuse(self, rejection: m.Rejection) -> None:
        if self.refusal is None:
            self.refusal = rejection

    def on_message_begin(self) -> None:
        self.is_in_message = True

    def _begin_head(self) -> None:
        self._headers = {}
        self._target = b""
        self._body = b""
        self._has_head = self._has_two_hosts = self._is_upgrade = False
        self._repeated = self._body_left_bytes = 0
        #: Fed to the parser and no part of a body: of this request, and since its body's last part.
        self._line_bytes = self._lines_at_once_bytes = 0

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:  # a trailer, which nobody on the way has looked at as a header
            return
        name = name.lower()
        before = self._headers.get(name)
        if before is None:
            self._headers[name] = value
            return
        self._repeated += 1
        if self._repeated > FIELDS_MAX:  # which is refused as soon as the head is there
            return
        # Two tokens are none: whoever is asked which one counts may answer otherwise.
        self._headers[name] = b"%b, %b" % (before, value)
        if name == b"host":
            self._has_two_hosts = True

    def on_headers_complete(self) -> None:
        self._has_head = True
        if self.refusal is not None:
            return
        headers, parser = self._headers, self._parser
        # All that was parsed, since a head that is fed in parts ends with one of them.
        if self._line_bytes > HEAD_MAX_BYTES or len(headers) + self._repeated > FIELDS_MAX:
            self._refuse(HEAD_TOO_LARGE)
            return
        version = parser.get_http_version()
        why = request_head.why_no_request(version, headers, self._has_two_hosts)
        if why is not None:
            self._refuse(why)
            return
        size = int(headers.get(b"content-length", 0))
        has_body = size > 0 or b"transfer-encoding" in headers
        if size > BODY_MAX_BYTES:
            self._refuse(_BODY_TOO_LARGE)
        elif has_body and parser.should_upgrade() and parser.get_method() != b"CONNECT":
            self._is_upgrade = True
        else:
            self._body_left_bytes = size
            if has_body and b"expect" in headers and not self.ready:
                if request_head.is_continue_expected(version, headers):
                    self._say_continue()

    def on_body(self, part: bytes) -> None:
        size = len(part)
        self._line_bytes -= size
        self._lines_at_once_bytes = 0
        if self._body_left_bytes:
            self._body_left_bytes -= size
        if self.refusal is not None:
            return
        if self._body:
            self._body = bytearray(self._body) if isinstance(self._body, bytes) else self._body
            self._body += part
        else:
            self._body = part
        if len(self._body) > BODY_MAX_BYTES:
            self._refuse(_BODY_TOO_LARGE)

    def on_message_complete(self) -> None:
        self.is_in_message = False
        self._blank_bytes = 0
        if self.refusal is not None or self._is_upgrade:
            return
        parser = self._parser
        method = parser.get_method()
        stays = parser.should_keep_alive() and method != b"CONNECT"
        target = request_head.path_of(self._target)
        self.ready.append(Request(method, target, self._headers, bytes(self._body), stays))
        self._begin_head()
