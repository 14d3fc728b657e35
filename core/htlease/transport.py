"""One HTTP exchange with the lease server; stdlib only, so that it runs on an execution point.

HTTP is spoken here rather than through `http.client`, whose import (with the parsers of e-mail
that it brings) is a seventh of the time that a wrapper takes to start.
"""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit

from htlease.errors import BadConfig

EXCHANGE_SECONDS = 15.0
_HEADERS_MAX = 200
_LINE_MAX_BYTES = 64 * 1024
_BODY_MAX_BYTES = 1 << 30


class NoAnswer(Exception):
    """The exchange broke; whether the server acted on it is not known."""


class _Closed(Exception):
    """The other side closed the connection before it answered anything."""


@dataclass(frozen=True)
class Answer:
    """What the server said: an HTTP status and a JSON document ({} when it was none)."""

    status: int
    document: dict[str, Any]
    retry_after_seconds: float | None = None


class Transport(Protocol):
    """Sends one request and returns its answer; raises NoAnswer when there is none."""

    def exchange(self, method: str, path: str, body: dict[str, Any] | None) -> Answer:
        """Send a request once, without retries."""


class HttpTransport:
    """JSON over HTTP/1.1 with a kept connection for each thread.

    Certificates are checked against the system's authorities, or SSL_CERT_FILE.
    """

    def __init__(
        self, base_url: str, token: str | None, *, exchange_seconds: float = EXCHANGE_SECONDS
    ) -> None:
        """Prepare a transport; raises BadConfig when the URL or the token cannot be used."""
        parts = urlsplit(base_url)
        try:
            port = parts.port
        except ValueError as error:
            raise BadConfig(f"server URL {base_url!r}: {error}") from None
        is_plain = all("!" <= char <= "~" for char in base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
            raise BadConfig(
                f"server URL {base_url!r} is not http://HOST:PORT or https://HOST[:PORT]"
            )
        if token is not None and not all("!" <= char <= "~" for char in token):
            raise BadConfig("the token has blanks or other characters that no token has")
        self.base_url = base_url.rstrip("/")
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port or (443 if self._is_tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._exchange_seconds = exchange_seconds
        headers = [f"Host: {parts.netloc.rpartition('@')[2]}", "Content-Type: application/json"]
        if token is not None:
            headers.append(f"Authorization: Bearer {token}")
        self._headers = "".join(f"{header}\r\n" for header in headers)
        self._local = threading.local()

    def exchange(self, method: str, path: str, body: dict[str, Any] | None) -> Answer:
        """Send a request once; a kept connection that the server had closed is opened anew."""
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        head = (
            f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._headers}"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        is_kept = getattr(self._local, "connection", None) is not None
        try:
            return self._exchange_once(head.encode("ascii") + data)
        except (_Closed, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            if not is_kept:
                raise NoAnswer(f"{self.base_url}: {error}") from error
        except (OSError, ValueError) as error:
            self.close()
            raise NoAnswer(f"{self.base_url}: {error}") from error
        # Requests carry an ID, so sending one twice is safe.
        return self.exchange(method, path, body)

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.reader.close()
            connection.close()
            self._local.connection = None

    def _exchange_once(self, request: bytes) -> Answer:
        if getattr(self._local, "connection", None) is None:
            self._local.connection = self._connect()
            self._local.reader = self._local.connection.makefile("rb")
        self._local.connection.sendall(request)
        status, headers, text, may_stay = _read_response(self._local.reader)
        if not may_stay:
            self.close()
        try:
            document = json.loads(text)
        except ValueError:
            document = {}
        retry_after = headers.get("retry-after", "")
        return Answer(
            status,
            document if isinstance(document, dict) else {},
            float(retry_after) if retry_after.isdigit() else None,
        )

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((self._host, self._port), self._exchange_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._is_tls:
            return connection
        import ssl  # as costly as all of the above

        try:
            return ssl.create_default_context().wrap_socket(connection, server_hostname=self._host)
        except OSError:
            connection.close()
            raise


def _read_response(reader: BinaryIO) -> tuple[int, dict[str, str], bytes, bool]:
    """Return status, headers by lower-case name, body, and whether the connection may stay.

    Raises _Closed, or ValueError for what is not HTTP.
    """
    status = 100
    while status < 200:  # 1xx only announces the answer proper
        first = reader.readline(_LINE_MAX_BYTES)
        if not first:
            raise _Closed("the server closed the connection")
        version, _, rest = first.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise ValueError("the answer is not HTTP")
        status = int(rest[:3])
        headers = _read_headers(reader)
    is_close = headers.get("connection", "").lower() == "close" or version == b"HTTP/1.0"
    if status in (204, 304):
        return status, headers, b"", not is_close
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return status, headers, _read_chunks(reader), not is_close
    if "content-length" in headers:
        return status, headers, _read(reader, int(headers["content-length"])), not is_close
    return status, headers, reader.read(_BODY_MAX_BYTES), False


def _read_headers(reader: BinaryIO) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(_HEADERS_MAX):
        line = reader.readline(_LINE_MAX_BYTES)
        if not line.endswith(b"\n"):
            raise ValueError("the answer broke off")
        if line in (b"\r\n", b"\n"):
            return headers
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    raise ValueError(f"the answer has more than {_HEADERS_MAX} headers")


def _read_chunks(reader: BinaryIO) -> bytes:
    body = b""
    while True:
        size = int(reader.readline(_LINE_MAX_BYTES).partition(b";")[0], 16)
        if size == 0:
            _read_headers(reader)  # trailers, and the empty line after them
            return body
        body += _read(reader, size)
        reader.readline(_LINE_MAX_BYTES)


def _read(reader: BinaryIO, size: int) -> bytes:
    if not 0 <= size <= _BODY_MAX_BYTES:
        raise ValueError(f"the answer has a part of {size} bytes")
    data = reader.read(size)
    if len(data) != size:
        raise ValueError("the answer broke off")
    return data
