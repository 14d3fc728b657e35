"""DAG scripts' words with the lease server, at the least cost of a start.

`htlease.client` says the same and more, but to load it takes longer than all that a script does.
Commands are the JSON bodies of `htlease.protocol`. Runs on the access point.
"""

from __future__ import annotations

import json
import os
import socket
import time

from htlease.errors import BadConfig, Refused, ServerUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_URL = "http://"
_PAUSE_FIRST_SECONDS = 0.2
_PAUSE_MAX_SECONDS = 2.0
_EXCHANGE_MIN_SECONDS = 1.0
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quoted(name: str) -> str:
    """Return a name as one part of a path, percent-encoded."""
    return "".join(
        char if char in _UNRESERVED else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in name
    )


class Wire:
    """Exchanges documents with one server until a common point in time."""

    def __init__(self, url: str, token: str, wait_seconds: float) -> None:
        """Prepare; raises BadConfig when URL or token cannot be used."""
        if not token or not all("!" <= char <= "~" for char in token):
            raise BadConfig("the token is empty or has characters that no token has")
        self._url = url.rstrip("/")
        self._token = token
        self._exchange_seconds = max(_EXCHANGE_MIN_SECONDS, wait_seconds)
        self._give_up_at = time.monotonic() + wait_seconds

    def command(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Post a command, with one request ID however often; raises Refused, ServerUnavailable."""
        return self.exchange("POST", path, {**body, "request_id": os.urandom(16).hex()})

    def exchange(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Ask until there is an answer; raises Refused or ServerUnavailable."""
        pause_seconds = _PAUSE_FIRST_SECONDS
        while True:
            try:
                return _document(*self._once(method, path, body))
            except ServerUnavailable:
                if time.monotonic() + pause_seconds > self._give_up_at:
                    raise
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _PAUSE_MAX_SECONDS)

    def _once(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[int, dict[str, Any]]:
        if not self._url.startswith(_URL):
            return self._with_transport(method, path, body)
        host, _, prefix = self._url[len(_URL) :].partition("/")
        data = b"" if body is None else json.dumps(body).encode()
        # By HTTP/1.0 the answer ends where the connection does.
        head = (
            f"{method} {prefix and '/' + prefix}{path} HTTP/1.0\r\nHost: {host}\r\n"
            f"Authorization: Bearer {self._token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        try:
            return _answer(_sent(_address(host), head.encode() + data, self._exchange_seconds))
        except (OSError, ValueError) as error:
            raise ServerUnavailable(f"{self._url}: {error}") from None

    def _with_transport(
        self, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[int, dict[str, Any]]:
        """Exchange by https, where loading TLS costs more than the rest anyway."""
        from htlease.transport import HttpTransport, NoAnswer

        transport = HttpTransport(self._url, self._token, exchange_seconds=self._exchange_seconds)
        try:
            answer = transport.exchange(method, path, body)
        except NoAnswer as error:
            raise ServerUnavailable(str(error)) from None
        finally:
            transport.close()
        return answer.status, answer.document


def _address(host: str) -> tuple[str, int]:
    name, colon, port = host.rpartition(":")
    if not colon or port.endswith("]"):
        name, port = host, "80"
    if not port.isdigit():
        raise BadConfig(f"server URL http://{host}: {port!r} is no port")
    return name.strip("[]"), int(port)


def _sent(address: tuple[str, int], request: bytes, seconds: float) -> bytes:
    with socket.create_connection(address, timeout=seconds) as connection:
        connection.sendall(request)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def _answer(raw: bytes) -> tuple[int, dict[str, Any]]:
    """Read an answer; raises ValueError when it is cut short or not HTTP."""
    head, blank, text = raw.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if not blank or not words[0].startswith(b"HTTP/"):
        raise ValueError("the answer broke off")
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and int(value) != len(text):
            raise ValueError("the answer broke off")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    return int(words[1]), document if isinstance(document, dict) else {}


def _document(status: int, document: dict[str, Any]) -> dict[str, Any]:
    if 200 <= status < 300 and document:
        return document
    code, detail = document.get("code"), document.get("detail")
    if status >= 500 or status == 429 or not code:
        # No code: not our server, a proxy in between perhaps; what it says may pass.
        raise ServerUnavailable(f"the server answered {status}: {detail or 'no document of ours'}")
    raise Refused(
        code,
        str(detail),
        status=status,
        retry_after_seconds=document.get("retry_after_seconds"),
        outcome=document.get("outcome"),
    )
