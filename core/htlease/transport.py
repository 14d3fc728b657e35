"""One HTTP exchange with the lease server; stdlib only, so that it runs on an execution point."""

from __future__ import annotations

import http.client
import json
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from htlease.errors import BadConfig

if TYPE_CHECKING:
    import ssl

EXCHANGE_SECONDS = 15.0


class NoAnswer(Exception):
    """The exchange broke; whether the server acted on it is not known."""


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

    Certificates and host names are always checked, against the authorities in the file that
    HTLEASE_CA_FILE names, or else those of the system (SSL_CERT_FILE) and X509_CERT_DIR, where
    grid sites have theirs.
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
        self._host, self._port = parts.hostname, port
        self._prefix = parts.path.rstrip("/")
        self._exchange_seconds = exchange_seconds
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._local = threading.local()
        self._tls: ssl.SSLContext | None = None

    def exchange(self, method: str, path: str, body: dict[str, Any] | None) -> Answer:
        """Send a request once; a kept connection that the server had closed is opened anew."""
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        connection, is_kept = self._connection()
        try:
            return self._exchange_on(connection, method, path, data)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            if not is_kept:
                raise NoAnswer(f"{self.base_url}: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise NoAnswer(f"{self.base_url}: {error}") from error
        # Requests carry an ID, so sending one twice is safe.
        return self.exchange(method, path, body)

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        kept = getattr(self._local, "connection", None)
        if kept is not None:
            return kept, True
        connection: http.client.HTTPConnection
        if self._is_tls:
            self._tls = self._tls or _tls_context()
            connection = http.client.HTTPSConnection(
                self._host,
                self._port,
                timeout=self._exchange_seconds,
                context=self._tls,
            )
        else:
            connection = http.client.HTTPConnection(
                self._host, self._port, timeout=self._exchange_seconds
            )
        self._local.connection = connection
        return connection, False

    def _exchange_on(
        self, connection: http.client.HTTPConnection, method: str, path: str, data: bytes | None
    ) -> Answer:
        connection.request(method, self._prefix + path, data, self._headers)
        response = connection.getresponse()
        text = response.read()
        retry_after = response.headers.get("Retry-After", "")
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            if response.status < 300:
                raise NoAnswer(f"{self.base_url}: answered {response.status} without a document")
            document = {}
        return Answer(
            response.status,
            document,
            float(retry_after) if retry_after.isdigit() else None,
        )


def _tls_context() -> ssl.SSLContext:
    import ssl  # as costly to load as all of the above

    authorities = os.environ.get("HTLEASE_CA_FILE")
    try:
        context = ssl.create_default_context(cafile=authorities)
        folder = os.environ.get("X509_CERT_DIR")
        if folder and not authorities:
            context.load_verify_locations(capath=folder)
    except OSError as error:
        named = f"HTLEASE_CA_FILE {authorities}" if authorities else f"X509_CERT_DIR {folder}"
        raise BadConfig(f"{named} cannot be used: {error.strerror or error}") from None
    return context
