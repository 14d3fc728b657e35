"""HTTP/1.1 by the letter: what is read as an answer, and what never is."""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import socket
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htlease.wire.http11 import (
    BODY_MAX_BYTES,
    HEAD_MAX_BYTES,
    BadAnswer,
    Closed,
    RawAnswer,
    read_answer,
    request_bytes,
)


class Stream:
    """Hands out bytes in pieces, and counts what was asked of it."""

    def __init__(self, data: bytes, piece: int = 1 << 20) -> None:
        self._data = io.BytesIO(data)
        self._piece = piece
        self.is_over = False

    def __call__(self, size: int) -> bytes:
        assert not self.is_over, "read on after the end"
        data = self._data.read(min(size, self._piece))
        self.is_over = not data
        return data


def read(data: bytes, piece: int = 1 << 20) -> RawAnswer:
    return read_answer(Stream(data, piece))


def head(*fields: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *fields, "", ""]).encode("latin-1")


CHUNKED = head("Transfer-Encoding: chunked")
LONG_BODY = b"x" * 100_000

WHOLE: dict[str, tuple[bytes, tuple[int, bytes, bool]]] = {
    "with a length": (head("Content-Length: 2") + b"{}", (200, b"{}", True)),
    "blanks around a value": (head("content-LENGTH: \t2 \t") + b"{}", (200, b"{}", True)),
    "no reason": (head("Content-Length: 0", status="HTTP/1.1 200"), (200, b"", True)),
    "an empty reason": (head("Content-Length: 0", status="HTTP/1.1 503 "), (503, b"", True)),
    "a reason in Latin-1": (
        head("Content-Length: 0", status="HTTP/1.1 503 \xe9"),
        (503, b"", True),
    ),
    "long": (head(f"Content-Length: {len(LONG_BODY)}") + LONG_BODY, (200, LONG_BODY, True)),
    "in parts": (
        CHUNKED + b'3;x="y z"\r\n{"a\r\n4 \r\n":1}\r\n000\r\nTrailer: x\r\n\r\n',
        (200, b'{"a":1}', True),
    ),
    "to the end": (head() + b"{}", (200, b"{}", False)),
    "of an old server": (head(status="HTTP/1.0 200 OK") + b"{}", (200, b"{}", False)),
    "closing": (head("Connection: x, Close", "Content-Length: 2") + b"{}", (200, b"{}", False)),
    "after announcements": (
        head(status="HTTP/1.1 100 Continue") * 3
        + head("Link: x", status="HTTP/1.1 103 Hints")
        + head("Content-Length: 2")
        + b"{}",
        (200, b"{}", True),
    ),
    "without a body": (head("Content-Length: 9", status="HTTP/1.1 304 -"), (304, b"", True)),
    "with more behind it": (head("Content-Length: 2") + b"{}HTTP/1.1 200", (200, b"{}", False)),
    "of parts, with more behind it": (CHUNKED + b"0\r\n\r\n\r\n", (200, b"", False)),
}


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", WHOLE)
def test_whole_answers_are_read_however_they_arrive(name: str, piece: int) -> None:
    data, expected = WHOLE[name]
    answer = read(data, piece)
    # What lies behind an answer is seen only if it came with it.
    reusable = expected[2] or ("behind" in name and piece == 1)
    assert (answer.status, answer.body, answer.is_reusable) == (*expected[:2], reusable)


NOT_WHOLE: dict[str, bytes] = {
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "an older HTTP": b"<html>hello</html>",
    "a later HTTP": b"HTTP/2 200\r\n\r\n",
    "a strange version": head(status="HTTP/1.10 200 OK"),
    "no status": b"HTTP/1.1\r\n\r\n",
    "a status that is no number": head(status="HTTP/1.1 2x0 OK"),
    "a status out of range": head(status="HTTP/1.1 099 OK"),
    "a long status": head(status="HTTP/1.1 2000 OK"),
    "a bell in the reason": head(status="HTTP/1.1 200 \a"),
    "lines that end by LF alone": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "a CR within a value": head("X: a\rContent-Length: 9", "Content-Length: 2") + b"{}",
    "an LF within a value": head("X: a\nContent-Length: 9", "Content-Length: 2") + b"{}",
    "a NUL within a value": head("X: a\0b", "Content-Length: 2") + b"{}",
    "a folded line": head("X: a", " b", "Content-Length: 2") + b"{}",
    "a blank before the colon": head("Content-Length : 2") + b"{}",
    "a field without a name": head(": 2"),
    "a field without a colon": head("Content-Length"),
    "a name in Latin-1": head("Content-L\xe9ngth: 2") + b"{}",
    "two lengths": head("Content-Length: 2", "Content-Length: 2") + b"{}",
    "two lengths in one": head("Content-Length: 2, 2") + b"{}",
    "a signed length": head("Content-Length: +2") + b"{}",
    "a negative length": head("Content-Length: -1") + b"{}",
    "an empty length": head("Content-Length:") + b"{}",
    "a length in other digits": head("Content-Length: \xb2") + b"{}",
    "a length in words": head("Content-Length: 2 bytes") + b"{}",
    "a length beyond all": head(f"Content-Length: {10**40}"),
    "a length and parts": head("Content-Length: 2", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "parts twice": head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "compressed parts": head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "parts of an old server": head("Transfer-Encoding: chunked", status="HTTP/1.0 200 OK"),
    "a part without a size": CHUNKED + b"\r\n\r\n",
    "a part of a strange size": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "a part of a negative size": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "a part with underscores": CHUNKED + b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
    "a part longer than it says": CHUNKED + b"2\r\n{}}\r\n0\r\n\r\n",
    "a part that ends by anything": CHUNKED + b"2\r\n{}XX0\r\n\r\n",
    "a part that ends by LF": CHUNKED + b"2\n{}\n0\n\n",
    "a part beyond all": CHUNKED + b"ffffffffffff\r\n",
    "a part with an endless extension": CHUNKED + b"2;" + b"x" * 2000 + b"\r\n{}\r\n0\r\n\r\n",
    "a last part with a bad field": CHUNKED + b"0\r\nX\r\n\r\n",
    "too long a body": head(f"Content-Length: {BODY_MAX_BYTES + 1}"),
    "too long a line": head("X: " + "a" * HEAD_MAX_BYTES, "Content-Length: 2") + b"{}",
    "a line without end": b"HTTP/1.1 200 " + b"a" * (2 * HEAD_MAX_BYTES),
    "too long a head": head(*["X: " + "a" * 1000] * 70, "Content-Length: 2") + b"{}",
    "too many fields": head(*["X: y"] * 101, "Content-Length: 2") + b"{}",
    "another protocol's answer": head(status="HTTP/1.1 101 Switching Protocols"),
    "announcements without end": head(status="HTTP/1.1 100 Continue") * 1000,
    "zeros": b"\0" * 100_000,
}


@pytest.mark.parametrize("name", NOT_WHOLE)
def test_what_is_no_whole_answer_is_refused(name: str) -> None:
    with pytest.raises(BadAnswer):
        read(NOT_WHOLE[name])


#: Only the connection's end says where these end; who reads a document sees that it is cut.
WITHOUT_END = {"to the end", "of an old server"}
CUT = sorted(WHOLE.keys() - WITHOUT_END - {"long"})


@pytest.mark.parametrize("name", CUT)
def test_an_answer_cut_short_anywhere_is_none(name: str) -> None:
    data, (_, body, _) = WHOLE[name]
    for size in range(len(data)):
        with contextlib.suppress(BadAnswer):
            assert read(data[:size]).body == body  # cut in what follows it


def test_a_connection_closed_without_a_word_is_told_from_one_that_broke_off() -> None:
    with pytest.raises(Closed):
        read(b"")
    with pytest.raises(BadAnswer) as broken:
        read(b"H")
    assert not isinstance(broken.value, Closed)


def test_a_body_over_the_callers_limit_is_not_read() -> None:
    for data in (
        head("Content-Length: 11") + b"x" * 11,
        CHUNKED + b"6\r\nxxxxxx\r\n5\r\nxxxxx\r\n0\r\n\r\n",
        head() + b"x" * 11,
    ):
        with pytest.raises(BadAnswer, match="more than 10 bytes"):
            read_answer(Stream(data), body_max_bytes=10)


def test_a_head_made_to_be_slow_to_read_is_not() -> None:
    blanks = "X: " + " " * 60_000
    calls = 0

    def counting(receive: Callable[[int], bytes]) -> Callable[[int], bytes]:
        def one(size: int) -> bytes:
            nonlocal calls
            calls += 1
            return receive(size)

        return one

    with pytest.raises(BadAnswer, match="no field"):
        read_answer(counting(Stream(head(blanks + "\x01"))))
    assert calls < 5


class _Recorded:
    """A socket for `http.client`, which is asked what it makes of the same bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._data)


FIELD_VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    status = draw(st.sampled_from([200, 201, 301, 404, 409, 410, 503]))
    body = draw(st.binary(max_size=300))
    fields = [f"X-{n}: {value}" for n, value in enumerate(draw(st.lists(FIELD_VALUES, max_size=5)))]
    if draw(st.booleans()):
        fields.append(f"Content-Length: {len(body)}")
    else:
        fields.append("Transfer-Encoding: chunked")
        cuts = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=4))})
        parts = [body[a:b] for a, b in itertools.pairwise(cuts)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return head(*fields, status=f"HTTP/1.1 {status} X") + body


def by_the_library(data: bytes) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(cast(socket.socket, _Recorded(data)), method="POST")
    response.begin()
    return response.status, response.read()


@given(answers(), st.integers(1, 50))
def test_answers_are_read_as_pythons_own_library_reads_them(data: bytes, piece: int) -> None:
    answer = read(data, piece)
    assert (answer.status, answer.body) == by_the_library(data)


@given(answers(), st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3)), max_size=3))
def test_damaged_answers_are_refused_or_read_as_the_library_reads_them(
    data: bytes, damage: list[tuple[int, bytes]]
) -> None:
    for place, put in damage:
        data = data[:place] + put + data[place + 1 :]
    try:
        answer = read(data)
    except BadAnswer:
        return
    # What is accepted here is nothing else there: no two readers of one answer disagree.
    assert (answer.status, answer.body) == by_the_library(data)


@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        ("GET\r\nX: y", "/", {}),
        ("", "/", {}),
        ("GET", "/a b", {}),
        ("GET", "/a\r\nX: y", {}),
        ("GET", "http://elsewhere/", {}),
        ("GET", "/é", {}),
        ("GET", "/", {"A\r\nB": "c"}),
        ("GET", "/", {"A": "secret\r\nX: y"}),
        ("GET", "/", {"A": "secret\n"}),
        ("GET", "/", {"A": "secret\0"}),
        ("GET", "/", {"A": "sécret"}),
        ("GET", "/", {"A": ""}),
    ],
)
def test_nothing_can_be_put_into_a_request_that_is_not_its_own(
    method: str, target: str, fields: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="request|sent") as refused:
        request_bytes(method, target, fields, b"")
    assert "secret" not in str(refused.value)


def test_a_request_says_how_long_it_is() -> None:
    sent = request_bytes("POST", "/v1/x", {"Host": "h", "Via": "1.1 ap (agent)"}, b"{}\r\n\r\n")
    assert sent == (
        b"POST /v1/x HTTP/1.1\r\nHost: h\r\nVia: 1.1 ap (agent)\r\nContent-Length: 6\r\n\r\n{}\r\n\r\n"
    )
    assert b"Content-Length" not in request_bytes("GET", "/", {"Host": "h"}, b"")
