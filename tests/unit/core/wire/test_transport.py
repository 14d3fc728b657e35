"""HTTP as servers and proxies speak it."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from htlease.errors import BadConfig
from htlease.wire.transport import Answer, HttpTransport, NoAnswer, plain_url


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

    def __init__(
        self,
        *connections: list[bytes],
        drip_seconds: float | None = None,
        after_first: bytes = b"",
        at_once: bool = False,
    ) -> None:
        self._connections = list(connections)
        self._drip_seconds = drip_seconds
        #: Sent after the first answer, when the caller may have read it.
        self._after_first = after_first
        self._at_once = at_once
        self.is_read = threading.Event()
        self.said_more = threading.Event()
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for answers in self._connections:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                break  # nobody comes, which the test is about
            if self._at_once:
                threading.Thread(
                    target=self._serve_one, args=(connection, answers), daemon=True
                ).start()
            else:
                self._serve_one(connection, answers)
        self._listener.close()

    def _serve_one(self, connection: socket.socket, answers: list[bytes]) -> None:
        with connection, contextlib.suppress(OSError):
            for answer in answers:
                request = _read_request(connection)
                if not request:
                    return
                self.requests.append(request)
                self._say(connection, answer)
                if not self.said_more.is_set():
                    if self._after_first:
                        self.is_read.wait(10)
                        connection.sendall(self._after_first)
                    self.said_more.set()

    def _say(self, connection: socket.socket, answer: bytes) -> None:
        if self._drip_seconds is None:
            connection.sendall(answer)
            return
        for place in range(len(answer)):
            connection.sendall(answer[place : place + 1])
            time.sleep(self._drip_seconds)


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


def said(answer: Answer) -> tuple[int, dict[str, Any], float | None]:
    return answer.status, answer.document, answer.retry_after_seconds


def test_a_request_goes_out_whole_with_its_token() -> None:
    peer = Peer([_ok(b'{"a": 1}')])
    answer = HttpTransport(f"{peer.url}/base/", "tok").exchange("POST", "/v1/x", {"é": [1]})
    assert said(answer) == (200, {"a": 1}, None)
    head, _, body = peer.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /base/v1/x HTTP/1.1"
    assert f"Host: {peer.url[7:]}" in lines
    assert "Authorization: Bearer tok" in lines
    assert f"Content-Length: {len(body)}" in lines
    assert body == b'{"\\u00e9":[1]}'


ONE_DOCUMENT = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n%b\r\n0\r\n\r\n" % b'{"a":1}'
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>", (502, {}, None)),
        (b"HTTP/1.1 503 -\r\nretry-AFTER: 7\r\nContent-Length: 0\r\n\r\n", (503, {}, 7.0)),
        (b"HTTP/1.1 503 -\r\nRetry-After: \xb2\r\nContent-Length: 0\r\n\r\n", (503, {}, None)),
        (
            b"HTTP/1.1 429 -\r\nRetry-After: Wed, 21 Oct\r\nContent-Length: 0\r\n\r\n",
            (429, {}, None),
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + ONE_DOCUMENT, (200, {"a": 1}, None)),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b'{"a":1}', (200, {"a": 1}, None)),
    ],
)
def test_answers_of_many_forms_are_read(
    raw: bytes, expected: tuple[int, dict[str, Any], float | None]
) -> None:
    assert said(HttpTransport(Peer([raw]).url, None).exchange("GET", "/", None)) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        _ok(b"[1]"),
        _ok(b"<html>"),
        _ok(b'{"a": 1'),
        _ok(b"[" * 200_000),
        _ok(b'{"a": "\xff"}'),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        b'HTTP/1.1 200 OK\r\n\r\n{"a": 1',
    ],
)
def test_what_is_no_whole_answer_is_none(raw: bytes) -> None:
    with pytest.raises(NoAnswer, match="http://127"):
        HttpTransport(Peer([raw]).url, None).exchange("GET", "/", None)


def test_a_redirection_is_not_followed() -> None:
    elsewhere = Peer([_ok(b'{"token": "theirs"}')])
    found = f"HTTP/1.1 307 -\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n".encode()
    answer = HttpTransport(Peer([found]).url, "tok").exchange("GET", "/", None)
    assert said(answer) == (307, {}, None)
    assert elsewhere.requests == []


def test_a_connection_is_kept_and_opened_anew_when_the_server_had_closed_it() -> None:
    peer = Peer(
        [_ok(b'{"n":1}'), _ok(b'{"n":2}')], [_ok(b'{"n":3}', "Connection: close")], [_ok(b"{}")]
    )
    transport = HttpTransport(peer.url, None)
    seen = [transport.exchange("GET", f"/{number}", None).document for number in range(3)]
    assert seen == [{"n": 1}, {"n": 2}, {"n": 3}]
    transport.exchange("GET", "/3", None)
    assert [request.split()[1] for request in peer.requests] == [b"/0", b"/1", b"/2", b"/3"]


def test_a_kept_connection_that_is_closed_for_an_answer_costs_one_more_request() -> None:
    peer = Peer([_ok(b'{"n":1}'), b""], [_ok(b'{"n":2}')])
    transport = HttpTransport(peer.url, None)
    assert transport.exchange("GET", "/0", None).document == {"n": 1}
    assert transport.exchange("GET", "/1", None).document == {"n": 2}
    assert [request.split()[1] for request in peer.requests] == [b"/0", b"/1", b"/1"]


@pytest.mark.parametrize("is_late", [False, True])
def test_an_answer_that_nobody_asked_for_answers_nothing(is_late: bool) -> None:
    """Whether it comes with the answer before it, or only then."""
    forged = _ok(b'{"forged": true}')
    first = [_ok(b'{"n":1}'), forged] if is_late else [_ok(b'{"n":1}') + forged]
    peer = Peer([first[0], b""], [_ok(b'{"n":2}')], after_first=b"".join(first[1:]))
    transport = HttpTransport(peer.url, None)
    assert transport.exchange("GET", "/0", None).document == {"n": 1}
    peer.is_read.set()
    assert peer.said_more.wait(10)
    assert transport.exchange("GET", "/1", None).document == {"n": 2}


def test_threads_do_not_share_a_connection_at_one_time() -> None:
    answers = [_ok(b"{}") for _ in range(40)]
    peers = Peer(*[list(answers) for _ in range(8)], at_once=True)
    transport = HttpTransport(peers.url, None)
    failures: list[object] = []

    def ask() -> None:
        try:
            for _ in range(20):
                transport.exchange("GET", "/", None)
        except NoAnswer as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(peers.requests) == 160
    transport.close()


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


def test_a_server_that_drips_is_no_answer_once_the_time_is_over() -> None:
    peer = Peer([_ok(b"x" * 100_000)], drip_seconds=0.02)
    with pytest.raises(NoAnswer, match="timed out"):
        HttpTransport(peer.url, None, exchange_seconds=0.5).exchange("GET", "/", None)


def test_a_server_that_takes_no_request_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        transport = HttpTransport(url, None, exchange_seconds=0.5)
        with pytest.raises(NoAnswer, match="timed out"):
            transport.exchange("POST", "/", {"details": "x" * (64 << 20)})


@pytest.mark.parametrize(
    ("url", "host", "address"),
    [
        ("http://h", "h", ("h", 80)),
        ("HTTPS://h.example-x.org/base/", "h.example-x.org", ("h.example-x.org", 443)),
        ("http://[::1]:8620", "[::1]:8620", ("::1", 8620)),
        ("http://[fe80::1%eth0]", "[fe80::1%eth0]", ("fe80::1%eth0", 80)),
        ("http://127.0.0.1:1/", "127.0.0.1:1", ("127.0.0.1", 1)),
    ],
)
def test_a_url_names_host_and_port(url: str, host: str, address: tuple[str, int]) -> None:
    transport = HttpTransport(url, None)
    assert transport._fields["Host"] == host
    assert (transport._host, transport._port) == address


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "x",
        "",
        "http://",
        "http://h:port",
        "http://h/a b",
        "http://h\r\nX: y",
        "http://:80",
        "http://h:0",
        "http://h:65536",
        "http://h:²",
        "http://::1",
        "http://[::1",
        "http://user:pass@h",
        "http://h?q",
        "http://h#f",
        "http://h\\x",
        "http://h/é",
    ],
)
def test_a_url_that_cannot_be_used_is_named(url: str) -> None:
    with pytest.raises(BadConfig, match="server URL"):
        HttpTransport(url, None)


def test_a_token_that_would_add_headers_is_refused_and_not_shown() -> None:
    with pytest.raises(BadConfig) as caught:
        HttpTransport("http://h", "secret\r\nX: y")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["http://lease.example.org", "http://10.0.0.1:8620", "http://127.evil.org", "http://[fe80::1]"],
)
def test_a_token_goes_unencrypted_to_another_machine_only_if_the_url_says_so(url: str) -> None:
    with pytest.raises(BadConfig, match="unencrypted") as refused:
        HttpTransport(url, "secret-token")
    assert "secret-token" not in str(refused.value)
    trusted = url.replace("http:", "http+insecure:")
    assert trusted in str(refused.value), "it says how to say so"
    HttpTransport(trusted, "secret-token")
    HttpTransport(url, None)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://127.1", "http://localhost", "http://[::1]", "https://h"]
)
def test_this_machine_and_https_need_no_such_word(url: str) -> None:
    HttpTransport(url, "secret-token")
    assert plain_url(url) == url


def test_other_clients_are_given_urls_that_they_know() -> None:
    assert plain_url("http+insecure://h:1/x") == "http://h:1/x"
