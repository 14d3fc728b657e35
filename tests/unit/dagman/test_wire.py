"""The scripts' own way to the server, at its edges; the rest runs against a real one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from htlease.errors import BadConfig, Refused, ServerUnavailable
from htlease_dagman.wire import Wire, quoted


@contextmanager
def answering(*answers: bytes) -> Iterator[str]:
    """Answer one connection after the other with given bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def http(status: int, body: bytes, *headers: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} X", *headers))
    return head.encode() + b"\r\n" + body


@pytest.mark.parametrize("name", ["a", "s+n.1~_-", "a#b", "50%", "a b", "ü/ä", "x:y@z=1,2"])
def test_names_are_encoded_as_the_library_encodes_them(name: str) -> None:
    assert quoted(name) == quote(name, safe="")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        http(200, b'{"a": 1', "Content-Length: 8"),
        http(200, b"<html>"),
        http(502, b"<html>"),
        http(404, b"not ours"),
        http(503, b'{"code": "overloaded", "detail": "x"}'),
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
)
def test_what_is_no_answer_of_ours_means_that_the_server_is_away(answer: bytes) -> None:
    with answering(answer) as url, pytest.raises(ServerUnavailable):
        Wire(url, "t", 0).exchange("GET", "/v1/x", None)


def test_an_answer_that_broke_off_is_asked_for_again() -> None:
    good = http(200, b'{"a": 1}', "Content-Length: 8")
    with answering(good[:-1], good) as url:
        assert Wire(url, "t", 5).exchange("GET", "/v1/x", None) == {"a": 1}


def test_a_refusal_keeps_its_code_and_when_to_come_again() -> None:
    body = b'{"code": "lease-still-live", "detail": "no", "retry_after_seconds": 2.5}'
    with answering(http(409, body)) as url, pytest.raises(Refused) as refused:
        Wire(url, "t", 5).command("/v1/x", {})
    assert (refused.value.code, refused.value.retry_after_seconds) == ("lease-still-live", 2.5)


@pytest.mark.parametrize("url", ["http://host:port", "ftp://host", "host:1"])
def test_a_url_that_cannot_be_used_is_named(url: str) -> None:
    with pytest.raises(BadConfig, match=url.partition(":")[0]):
        Wire(url, "t", 0).exchange("GET", "/v1/x", None)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak"])
def test_a_token_that_would_break_the_request_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(BadConfig) as bad:
        Wire("http://127.0.0.1:1", token, 0)
    assert not token or token not in str(bad.value)


def test_https_goes_by_the_librarys_transport() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServerUnavailable, match=f"https://127.0.0.1:{port}"):
        Wire(f"https://127.0.0.1:{port}", "t", 0).exchange("GET", "/v1/x", None)
