"""What a hostile client does on one connection, drawn from a seed."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.hostile.line import Answer, Line

_IDS = itertools.count(1)
ENDLESS_BYTES = 400_000
#: How long a client waits for what it is owed.
PATIENCE_SECONDS = 20.0


class Target(NamedTuple):
    """The server under attack, and a token that it takes."""

    address: tuple[str, int]
    token: str
    #: Path of a subjob that the token reaches and that nobody holds.
    subjob: str
    #: Clients behind a proxy see its own refusals too.
    is_direct: bool = True


class Wanted(NamedTuple):
    """A complete request, and what its answer has to be like."""

    data: bytes
    statuses: tuple[int, ...]
    #: Part of the answer's body, so that nobody gets another's.
    mark: bytes = b""


def _request(method: str, path: str, body: bytes = b"", *fields: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *fields]
    if body or method != "GET":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def unknown() -> Wanted:
    mark = f"/nowhere-{next(_IDS)}-"
    return Wanted(_request("GET", mark), (404,), mark.encode())


def renewal(target: Target) -> Wanted:
    """A renewal that waits in the queue of the writer, and is refused there."""
    body = {"request_id": f"h-{next(_IDS)}", "fence": 1, "nonce": "nonce-of-nobody-123456"}
    token = f"Authorization: Bearer {target.token}"
    data = _request("POST", f"{target.subjob}/renew", json.dumps(body).encode(), token)
    return Wanted(data, (404, 410, 412, 503))


def healthz() -> Wanted:
    return Wanted(_request("GET", "/healthz"), (200,), b'"ok"')


def openapi() -> Wanted:
    return Wanted(_request("GET", "/openapi.json"), (200,), b'"openapi"')


def stranger() -> Wanted:
    body = b" " * random.Random(next(_IDS)).randrange(200_000)
    return Wanted(_request("POST", "/v1/workflows/w/subjobs/s/acquire", body), (401, 503))


def chunked(draw: random.Random, trailer: bytes = b"") -> Wanted:
    """A body in chunks with extensions and trailers, all as it should be."""
    mark = f"/nowhere-{next(_IDS)}-"
    head = _request("POST", mark).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    parts = b""
    for _ in range(draw.randrange(5)):
        size = draw.choice([1, 2, 300])
        extension = draw.choice([b"", b";a=b", b';c="d"'])
        parts += b"%x%b\r\n%b\r\n" % (size, extension, b"y" * size)
    end = draw.choice([b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n"])
    return Wanted(head + parts + end, (404,), mark.encode())


def some(draw: random.Random, target: Target, most: int) -> list[Wanted]:
    kinds: list[Callable[[], Wanted]] = [
        unknown,
        unknown,
        healthz,
        lambda: renewal(target),
        lambda: chunked(draw),
    ]
    if draw.random() < 0.2:
        kinds += [stranger, openapi]
    return [draw.choice(kinds)() for _ in range(draw.randint(1, most))]


class Wrong(AssertionError):
    """An answer that nobody may get."""


def check(line: Line, wanted: list[Wanted], is_direct: bool, may_be_refused: bool) -> None:
    """Each complete request was answered once and in order, or its connection closed.

    `may_be_refused`: what came after them was no request.
    """
    answers = list(line.answers)
    if len(answers) > len(wanted):
        rest: list[Answer] = answers[len(wanted) :]
        if not may_be_refused or len(rest) > 1 or rest[0].status < 400:
            raise Wrong(f"{len(answers)} answers to {len(wanted)} requests: {rest[:2]}")
    for answer, request in zip(answers, wanted, strict=False):
        if answer.status not in request.statuses or request.mark not in answer.body:
            is_last = answer is answers[-1]
            # Memory was full, or what came at once was too much for a proxy.
            if is_last and (answer.status == 503 or (may_be_refused and answer.status >= 400)):
                return
            if not is_direct and is_last and answer.status >= 400:
                return
            raise Wrong(f"{request.data[:200]!r} was answered {answer}")
    if not line.is_closed and len(answers) < len(wanted):
        raise Wrong(f"{len(wanted) - len(answers)} of {len(wanted)} requests were never answered")


# ------------------------------------------------------------ plays


async def pipelining(line: Line, target: Target) -> None:
    """Requests in one piece or many, answers read meanwhile or afterwards, or after half a close."""
    draw = line.draw
    wanted = some(draw, target, draw.choice([3, 30, 300]))
    if draw.random() < 0.5:
        wanted.insert(0, renewal(target))
    sending = asyncio.create_task(line.send(b"".join(each.data for each in wanted)))
    if draw.random() < 0.5:
        await sending
    await line.read(PATIENCE_SECONDS, len(wanted) if draw.random() < 0.5 else len(wanted) // 2)
    await sending
    if draw.random() < 0.5:
        line.end_sending()
    await line.read(PATIENCE_SECONDS, len(wanted))
    check(line, wanted, target.is_direct, False)


async def batch(line: Line, target: Target) -> None:
    """A renewal, which is answered with others, and hundreds that are refused at once."""
    wanted = [renewal(target), *(unknown() for _ in range(line.draw.choice([200, 800, 3000])))]
    sending = asyncio.create_task(line.send(b"".join(each.data for each in wanted)))
    await line.read(PATIENCE_SECONDS, len(wanted))
    await sending
    await line.read(PATIENCE_SECONDS, len(wanted))
    check(line, wanted, target.is_direct, False)


async def unread(line: Line, target: Target) -> None:
    """Large answers that nobody reads, until the server has enough."""
    wanted = [openapi() for _ in range(line.draw.choice([20, 200]))]
    await line.send(b"".join(each.data for each in wanted))
    await asyncio.sleep(line.draw.random() * 5)
    if line.draw.random() < 0.5:
        await line.read(1.0)


async def endless(line: Line, target: Target) -> None:
    """A part of a request that does not end."""
    head = b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    body = head + b"\r\n"
    begin, more = line.draw.choice(
        [
            (b"GET /", b"a"),
            (b"GET / HTTP/1.1\r\nx", b"y"),
            (b"GET / HTTP/1.1\r\nx: y", b"z"),
            (b"GET / HTTP/1.1\r\n", b"x: y\r\n"),
            (body + b"0\r\nx", b"y"),
            (body + b"0\r\nx: ", b"y"),
            (body + b"0\r\n", b"x: y\r\n"),
            (body + b"1;x", b"y"),
            (body + b"1", b"0"),
            (body, b"1\r\nx\r\n"),
            (body, b"1;" + b"x" * 500 + b"\r\ny\r\n"),
            (body, b"4\r\n\r\n\r\n\r\n"),
            (b"", b"\r\n"),
        ]
    )
    wanted = some(line.draw, target, 2) if line.draw.random() < 0.3 else []
    data = b"".join(each.data for each in wanted) + begin
    await line.send(data + more * (ENDLESS_BYTES // len(more)))
    await line.read(1.0)
    if line.is_closed:
        check(line, wanted, target.is_direct, True)


async def damaged(line: Line, target: Target) -> None:
    """Good requests, and then one with changed bytes."""
    draw = line.draw
    wanted = some(draw, target, 3) if draw.random() < 0.5 else []
    last = bytearray(draw.choice(some(draw, target, 3)).data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(last) or 1)
        last[at : at + draw.choice([0, 1, 8])] = draw.choice(
            [b"", b"\r\n", b"\n", b"\0", b" ", b"\r\n\r\n", b"chunked", b"0", b"\xff", b":"]
        )
    await line.send(b"".join(each.data for each in wanted) + bytes(last))
    line.end_sending()
    await line.read(PATIENCE_SECONDS, len(wanted) + 1)
    for answer in line.answers:
        if answer.status == 500:
            raise Wrong(f"{bytes(last)!r} made the server fail")


async def dribbling(line: Line, target: Target) -> None:
    """A request, or nothing, whose bytes come one by one."""
    data = line.draw.choice([b"", unknown().data, stranger().data[:300], chunked(line.draw).data])
    for at in range(len(data)):
        await line.send(data[at : at + 1])
        await asyncio.sleep(line.draw.random() * 0.3)
        if line.is_closed:
            return
    await line.read(line.draw.random() * 5)


async def cut_off(line: Line, target: Target) -> None:
    """Whoever goes in the middle of it, in silence or with a RST."""
    data = b"".join(each.data for each in some(line.draw, target, 40))
    await line.send(data[: line.draw.randrange(len(data))])
    if line.draw.random() < 0.5:
        await line.read(line.draw.random() * 0.1)
    if line.draw.random() < 0.7:
        line.reset()


async def large(line: Line, target: Target) -> None:
    """Bodies of the largest size, from nobody in particular, never ended."""
    head = b"POST /v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 262144\r\n\r\n"
    await line.send(head + b" " * 262_000)
    await asyncio.sleep(line.draw.random() * 5)


PLAYS: tuple[tuple[int, Callable[[Line, Target], Awaitable[None]]], ...] = (
    (6, pipelining),
    (2, batch),
    (2, unread),
    (3, endless),
    (5, damaged),
    (2, dribbling),
    (3, cut_off),
    (2, large),
)
