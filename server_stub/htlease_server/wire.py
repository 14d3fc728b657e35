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

_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A complete HTTP answer."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


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
    return Answer(body["status"], _encode(body), b"application/problem+json", headers)


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
    """Return a request's body; refuses one that is too large without reading all of it."""
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > BODY_MAX_BYTES:
            raise _too_large(f"{int(value)} bytes")
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if message["type"] == "http.disconnect":
            raise ClientGone("hung up")
        return body
    parts, size_bytes = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("hung up")
        parts.append(message.get("body", b""))
        size_bytes += len(parts[-1])
        if size_bytes > BODY_MAX_BYTES:
            raise _too_large(f"more than {BODY_MAX_BYTES} bytes")
    return b"".join(parts)


def _too_large(size: str) -> Refusal:
    # The rest of the body is still on its way: nothing more can be read from this connection.
    return Refusal(
        "too-large",
        f"the body has {size}; {BODY_MAX_BYTES} is the limit",
        (b"connection", b"close"),
    )
