"""Bytes to a server and bytes back, with nothing between that would put them right."""

from __future__ import annotations

import contextlib
import re
import socket
from typing import NamedTuple

#: For a server that says nothing more and does not hang up either.
SILENCE_SECONDS = 1.0
ANSWER_SECONDS = 30.0


class Heard(NamedTuple):
    """What came back."""

    statuses: list[int]
    text: bytes
    #: The server hung up.
    is_closed: bool


def say(url: str, *parts: bytes, answers: int | None = None) -> Heard:
    """Send bytes, and listen until the server hangs up or so many answers have come.

    Without a number: until it has been silent for a while.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    heard = b""
    with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as line:
        with contextlib.suppress(ConnectionError):  # it may have hung up before the last part
            for part in parts:
                line.sendall(part)
        line.settimeout(SILENCE_SECONDS if answers is None else ANSWER_SECONDS)
        while answers is None or len(_statuses(heard)) < answers or not _is_whole(heard):
            try:
                data = line.recv(65536)
            except TimeoutError:
                return Heard(_statuses(heard), heard, False)
            except ConnectionError:
                return Heard(_statuses(heard), heard, True)
            if not data:
                return Heard(_statuses(heard), heard, True)
            heard += data
    return Heard(_statuses(heard), heard, False)


def request(
    method: str, path: str, body: bytes = b"", *headers: bytes, token: str | None = None
) -> bytes:
    """Return a request as it should be, with more headers."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"host: x", *headers]
    lines.append(b"content-length: %d" % len(body))
    if token is not None:
        lines.append(b"authorization: Bearer " + token.encode())
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _statuses(heard: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard) if status != b"100"]


def _is_whole(heard: bytes) -> bool:
    """Tell whether the last answer has come to its end."""
    head, blank, body = heard[heard.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return bool(blank) and length is not None and len(body) >= int(length[1])
