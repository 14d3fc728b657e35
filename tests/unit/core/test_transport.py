"""HTTP as servers and proxies speak it."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from htlease.errors import BadConfig
from htlease.transport import Answer, HttpTransport, NoAnswer


def _read_request(connection: socket.socket) -> bytes:
    """Read one request, which may come in several parts."""
    data = connection.recv(65536)
    while data:
        head, end, body = data.partition(b"\r\n\r\n")
        size = re.search(rb"(?i)content-length: (\d+)", head)
        if end and len(body) >= (int(size[1]) if size else 0):
            break
        data += connection.recv(65536)
    return data


class Peer:
    """Answers each connection with prepared bytes, one list entry for each request."""

    def __init__(self, *connections: list[bytes]) -> None:
        self._connections = list(connections)
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for answers in self._connections:
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError):
                for answer in answers:
                    self.requests.append(_read_request(connection))
                    connection.sendall(answer)
        self._listener.close()


@pytest.fixture(autouse=True)
def no_hanging() -> Iterator[None]:
    """A test that waits for bytes that never come fails."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    yield
    socket.setdefaulttimeout(before)


def _ok(body: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_a_request_goes_out_whole_with_its_token() -> None:
    peer = Peer([_ok(b'{"a": 1}')])
    answer = HttpTransport(f"{peer.url}/base/", "tok").exchange("POST", "/v1/x", {"é": [1]})
    assert answer == Answer(200, {"a": 1})
    head, _, body = peer.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /base/v1/x HTTP/1.1"
    assert f"Host: {peer.url[7:]}" in lines
    assert "Authorization: Bearer tok" in lines
    assert f"Content-Length: {len(body)}" in lines
    assert body == b'{"\\u00e9":[1]}'


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>", Answer(502, {})),
        (b"HTTP/1.1 503 Busy\r\nretry-AFTER: 7\r\nContent-Length: 0\r\n\r\n", Answer(503, {}, 7.0)),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + _ok(b'{"a":1}'), Answer(200, {"a": 1})),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b'{"a":1}', Answer(200, {"a": 1})),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b"
            % b'3;x=y\r\n{"a\r\n4\r\n":1}\r\n0\r\nTrailer: x\r\n\r\n',
            Answer(200, {"a": 1}),
        ),
    ],
)
def test_answers_of_many_forms_are_read(raw: bytes, answer: Answer) -> None:
    assert HttpTransport(Peer([raw]).url, None).exchange("GET", "/", None) == answer


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        _ok(b"[1]"),
        _ok(b"<html>"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n",
        b"\0" * 100_000,
    ],
)
def test_what_is_no_whole_answer_is_none(raw: bytes) -> None:
    with pytest.raises(NoAnswer, match="http://127"):
        HttpTransport(Peer([raw]).url, None).exchange("GET", "/", None)


def test_a_connection_is_kept_and_opened_anew_when_the_server_had_closed_it() -> None:
    peer = Peer(
        [_ok(b'{"n":1}'), _ok(b'{"n":2}')], [_ok(b'{"n":3}', "Connection: close")], [_ok(b"{}")]
    )
    transport = HttpTransport(peer.url, None)
    seen = [transport.exchange("GET", f"/{number}", None).document for number in range(3)]
    assert seen == [{"n": 1}, {"n": 2}, {"n": 3}]
    transport.exchange("GET", "/3", None)
    assert [request.split()[1] for request in peer.requests] == [b"/0", b"/1", b"/2", b"/3"]


def test_nobody_there_is_no_answer() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    with pytest.raises(NoAnswer, match="refused"):
        HttpTransport(url, None).exchange("GET", "/", None)


def test_a_server_that_hangs_is_no_answer() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(NoAnswer, match="timed out"):
        HttpTransport(url, None, exchange_seconds=0.2).exchange("GET", "/", None)
    listener.close()


@pytest.mark.parametrize(
    "url", ["ftp://x", "x", "", "http://", "http://h:port", "http://h/a b", "http://h\r\nX: y"]
)
def test_a_url_that_cannot_be_used_is_named(url: str) -> None:
    with pytest.raises(BadConfig, match="server URL"):
        HttpTransport(url, None)


def test_a_token_that_would_add_headers_is_refused_and_not_shown() -> None:
    with pytest.raises(BadConfig) as caught:
        HttpTransport("http://h", "secret\r\nX: y")
    assert "secret" not in str(caught.value)
