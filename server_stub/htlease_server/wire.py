"""Answers as the server sends them: JSON documents and RFC 9457 problems over raw ASGI."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

import msgspec

from htlease import messages as m
from htlease.attempt import SubjobKey
from htlease.errors import HTLeaseError
from htlease.protocol import BODY_MAX_BYTES, problem_document

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: A client that is still sending would see a broken connection instead of the refusal, so what is
#: only somewhat too large is read and thrown away.
_READ_PAST_MAX_BYTES = 16 * BODY_MAX_BYTES
_HANG_UP = (b"connection", b"close")

_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A complete HTTP answer."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    #: `ok`, or the code of the refusal.
    code: str = "ok"


class Refusal(Exception):
    """Ends the handling of a request with a problem."""

    def __init__(
        self, code: str, detail: str, *headers: tuple[bytes, bytes], field: str | None = None
    ) -> None:
        super().__init__(code)
        self.rejection = m.Rejection(code, detail, field=field)
        self.headers = headers


class ClientGone(HTLeaseError):
    """The client hung up before its request was complete."""


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


async def send_answer(send: Send, answer: Answer) -> None:
    """Send an answer."""
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                (b"content-type", answer.content_type),
                (b"content-length", str(len(answer.body)).encode()),
                *answer.headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": answer.body})


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Return a request's body; refuses one that is too large and keeps none of it."""
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > _READ_PAST_MAX_BYTES:
            raise _too_large(_HANG_UP)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body") and message["type"] == "http.request":
        if len(body) > BODY_MAX_BYTES:
            raise _too_large()
        return body
    parts, size_bytes = [body], len(body)
    while message["type"] == "http.request" and message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
        size_bytes += len(parts[-1])
        if size_bytes > BODY_MAX_BYTES:
            parts.clear()
        if size_bytes > _READ_PAST_MAX_BYTES:
            raise _too_large(_HANG_UP)
    if message["type"] != "http.request":
        raise ClientGone("the client hung up")
    if size_bytes > BODY_MAX_BYTES:
        raise _too_large()
    return b"".join(parts)


def _too_large(*headers: tuple[bytes, bytes]) -> Refusal:
    return Refusal("too-large", f"the body has more than {BODY_MAX_BYTES} bytes", *headers)
