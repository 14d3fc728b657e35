"""Requests as they come, and answers as they go: JSON documents and RFC 9457 problems."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import msgspec

from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.wire.protocol import problem_document

_encode = msgspec.json.Encoder().encode
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Request(NamedTuple):
    """A complete HTTP request."""

    method: bytes
    #: Path and query as they were sent.
    target: bytes
    #: Names in lower case; the values of a repeated one are joined by commas.
    headers: Mapping[bytes, bytes]
    body: bytes
    #: The connection is for further requests.
    stays: bool


class Answer(NamedTuple):
    """A complete HTTP answer."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    #: `ok`, or the code of the refusal.
    code: str = "ok"


class Replier(Protocol):
    """Where a request's one answer goes."""

    def answer(self, answer: Answer) -> None:
        """Send the answer, if the client is still there."""


class Refusal(Exception):
    """Ends the handling of a request with a problem."""

    def __init__(
        self, code: str, detail: str, *headers: tuple[bytes, bytes], field: str | None = None
    ) -> None:
        super().__init__(code)
        self.rejection = m.Rejection(code, detail, field=field)
        self.headers = headers


class Unadmitted(Refusal):
    """Ends the handling of a request whose sender is not known, or not yet."""

    def __init__(self, rejection: m.Rejection) -> None:
        super().__init__(rejection.code, rejection.detail)
        self.rejection = rejection
        if rejection.code == "unauthorized":
            self.headers = ((b"www-authenticate", b'Bearer realm="htlease"'),)


class Busy(Refusal):
    """Refuses what would be done if there were less to do; `cause` is one of `counters.BUSY`."""

    def __init__(self, cause: str, detail: str, retry_after_seconds: float) -> None:
        super().__init__("overloaded", detail)
        self.cause = cause
        self.rejection = m.Rejection("overloaded", detail, retry_after_seconds=retry_after_seconds)


def document(value: Any) -> Answer:
    """Return a JSON document with status 200."""
    return Answer(200, _encode(value))


def problem(
    rejection: m.Rejection, key: SubjobKey | None = None, headers: tuple[Any, ...] = ()
) -> Answer:
    """Return the problem of a rejection, with `Retry-After` when it says when to come again."""
    if rejection.retry_after_seconds is not None:
        seconds = max(1, math.ceil(rejection.retry_after_seconds))
        headers = (*headers, (b"retry-after", str(seconds).encode()))
    body = problem_document(rejection, key)
    return Answer(
        body["status"], _encode(body), b"application/problem+json", headers, rejection.code
    )


def encoded(answer: Answer, request: Request | None, stays: bool) -> bytes:
    """Return the bytes of an answer; `stays` if the connection is for further requests."""
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
