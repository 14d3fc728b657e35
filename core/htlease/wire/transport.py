"""One HTTP exchange with the lease server; stdlib only, so that it runs on an execution point.

DAG scripts and hooks load it at each start, so what it loads is little: TLS only when it is used.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time

from htlease.errors import BadConfig
from htlease.wire.http11 import (
    BadAnswer,
    Closed,
    RawAnswer,
    is_count,
    is_loopback,
    is_visible,
    read_answer,
    request_bytes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import Any, Protocol

    class Transport(Protocol):
        """Sends one request and returns its answer; raises NoAnswer when there is none."""

        def exchange(self, method: str, path: str, body: dict[str, Any] | None) -> Answer:
            """Send a request once, without retries."""


EXCHANGE_SECONDS = 15.0
#: A URL that means: there is no way to the server but through the job's own attributes.
CHIRP_URL = "chirp:"
#: Scheme of a URL whose author trusts the network with tokens: http, and not by oversight.
INSECURE = "http+insecure"
_SCHEMES = ("http", "https", INSECURE)

_RETRY_AFTER_DIGITS_MAX = 9
#: What OpenSSL calls certificates that are their own authority, or whose authority it lacks.
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)
#: What OpenSSL calls an answer that is none of TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
#: A kept connection that the server has given up, noticed too late.
_GONE = (Closed, BrokenPipeError, ConnectionResetError)


class NoAnswer(Exception):
    """The exchange broke; whether the server acted on it is not known."""


class Answer:
    """What the server said: an HTTP status and a JSON document ({} when it was none)."""

    def __init__(
        self, status: int, document: dict[str, Any], retry_after_seconds: float | None = None
    ) -> None:
        self.status = status
        self.document = document
        self.retry_after_seconds = retry_after_seconds


class HttpTransport:
    """JSON over HTTP/1.1, on connections that are kept for the next request of any thread.

    Certificates and host names are always checked, against the authorities in the file that
    HTLEASE_CA_FILE names, or else those of the system (SSL_CERT_FILE) and X509_CERT_DIR, where
    grid sites have theirs. Tokens go over plain http to this machine itself only, unless the URL
    says that this is wanted (`INSECURE`).

    A forward proxy that the environment names (`forward_proxy`) is asked for a tunnel; where it
    gives none, the server is tried directly, since the variable may be meant for the payload.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None,
        *,
        exchange_seconds: float = EXCHANGE_SECONDS,
        via: str | None = None,
    ) -> None:
        """Prepare a transport; raises BadConfig when the URL or the token cannot be used.

        `exchange_seconds` limits a whole exchange, looking the host's name up excepted. `via`
        tells the server by which way a request came.
        """
        if token is not None and not is_visible(token):
            raise BadConfig("the token is empty or has blanks or characters that no token has")
        self.base_url = base_url.rstrip("/")
        scheme, authority, self._prefix = _parts(base_url)
        self._is_tls = scheme == "https"
        self._host, self._port = _address(base_url, authority, 443 if self._is_tls else 80)
        if token is not None and scheme == "http" and not is_loopback(self._host):
            raise BadConfig(
                f"server URL {base_url}: the token would cross the network unencrypted; let the "
                "server have a certificate (`htlease serve --tls-cert`) and use https, or, where "
                f"the network is trusted with tokens, say so: {INSECURE}://{authority}"
            )
        self._exchange_seconds = exchange_seconds
        self._fields = {"Host": authority, "Content-Type": "application/json"}
        if token is not None:
            self._fields["Authorization"] = f"Bearer {token}"
        if via is not None:
            self._fields["Via"] = via
        #: Threads take from its end and put back there; both are atomic.
        self._kept: list[socket.socket] = []
        self._tls: ssl.SSLContext | None = None
        self._may_ask_proxy = True

    def exchange(self, method: str, path: str, body: dict[str, Any] | None) -> Answer:
        """Send a request once; a kept connection that the server had closed is opened anew."""
        data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        request = request_bytes(method, self._prefix + path, self._fields, data)
        until = time.monotonic() + self._exchange_seconds
        try:
            return self._answer(self._exchanged(request, until))
        except (OSError, BadAnswer) as error:
            raise NoAnswer(f"{self.base_url}: {error}") from error

    def close(self) -> None:
        """Close the connections that are kept."""
        while self._kept:
            self._kept.pop().close()

    def _exchanged(self, request: bytes, until: float) -> RawAnswer:
        kept = self._kept_connection()
        if kept is not None:
            try:
                return self._exchanged_on(kept, request, until)
            except _GONE:
                pass  # requests carry an ID, so sending one twice is safe
        return self._exchanged_on(self._connected(until), request, until)

    def _exchanged_on(self, connection: socket.socket, request: bytes, until: float) -> RawAnswer:
        is_kept = False
        try:
            connection.settimeout(_left(until))
            connection.sendall(request)
            answer = read_answer(_receiver(connection, until))
            is_kept = answer.is_reusable
        finally:
            if not is_kept:
                connection.close()
        self._kept += [connection] if is_kept else []
        return answer

    def _kept_connection(self) -> socket.socket | None:
        """Return a connection on which nothing has come since its last answer, or None.

        What has come is its end, or an answer to a question that nobody asked.
        """
        while self._kept:
            try:
                connection = self._kept.pop()
            except IndexError:
                break  # another thread was faster
            waiting = select.poll()
            waiting.register(connection, select.POLLIN)
            if not waiting.poll(0):
                return connection
            connection.close()
        return None

    def _connected(self, until: float) -> socket.socket:
        unusable = None
        if self._may_ask_proxy and any(name.lower().endswith("_proxy") for name in os.environ):
            # Half of the time, so that some is left for the direct way.
            try:
                tunnel = self._tunnel((until + time.monotonic()) / 2)
            except OSError as error:
                unusable = error
            else:
                if tunnel is not None:
                    return tunnel
        try:
            connection = _connect(self._host, self._port, until, self._secured)
        except OSError as error:
            if unusable is None:
                raise
            raise OSError(f"{error}; by the {unusable}") from error
        # What led nowhere while the direct way did is not asked again.
        self._may_ask_proxy = unusable is None and self._may_ask_proxy
        return connection

    def _tunnel(self, until: float) -> socket.socket | None:
        """Return a connection through the proxy that the environment names, None without one."""
        from htlease.wire.forward_proxy import named_proxy, open_tunnel  # seldom needed

        proxy = named_proxy(os.environ, self._is_tls, self._host, self._port)
        if proxy is None:
            return None

        def prepared(connection: socket.socket) -> socket.socket:
            receive = _receiver(connection, until)
            open_tunnel(connection.sendall, receive, proxy, self._host, self._port)
            return self._secured(connection)

        try:
            return _connect(proxy.host, proxy.port, until, prepared)
        except OSError as error:
            raise OSError(f"{proxy}: {error}") from error

    def _secured(self, connection: socket.socket) -> socket.socket:
        return self._with_tls(connection) if self._is_tls else connection

    def _with_tls(self, connection: socket.socket) -> socket.socket:
        self._tls = self._tls or tls_context()
        try:
            return self._tls.wrap_socket(connection, server_hostname=self._host)
        except OSError as error:
            if getattr(error, "reason", None) in _NO_TLS:
                raise OSError("it speaks no TLS; name it with http:// if that is meant") from error
            if getattr(error, "verify_code", None) not in _UNKNOWN_AUTHORITY:
                raise
            raise OSError(f"{error}; set HTLEASE_CA_FILE to the file of its authority") from error

    def _answer(self, raw: RawAnswer) -> Answer:
        try:
            document = json.loads(raw.body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            if raw.status < 300:
                raise BadAnswer(f"answered {raw.status} without a document")
            document = {}
        retry_after = raw.fields.get("retry-after", "")
        is_number = is_count(retry_after, _RETRY_AFTER_DIGITS_MAX)
        return Answer(raw.status, document, float(retry_after) if is_number else None)


def _connect(
    host: str, port: int, until: float, prepared: Callable[[socket.socket], socket.socket]
) -> socket.socket:
    """Return what `prepared` makes of a connection to any address of a host.

    Raises OSError when none came about in time, and at once what else `prepared` raises.
    """
    # As bytes: for a text Python loads all that names in other scripts need.
    found = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
    failure: OSError | None = None
    for number, (family, kind, protocol, _, address) in enumerate(found):
        connection = socket.socket(family, kind, protocol)
        try:
            # Each address has its share, so that one that swallows all leaves some for others.
            connection.settimeout(_left(until) / (len(found) - number))
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(_left(until))
            return prepared(connection)
        except BadConfig:
            connection.close()
            raise
        except OSError as error:
            connection.close()
            failure = error
    raise failure or OSError("the host has no address")


def _receiver(connection: socket.socket, until: float) -> Callable[[int], bytes]:
    """Return what reads from a connection, however little comes at a time, until an instant."""

    def receive(size: int) -> bytes:
        connection.settimeout(_left(until))
        return connection.recv(size)

    return receive


def plain_url(base_url: str) -> str:
    """Return a server's URL as other HTTP clients take it."""
    scheme, colon, rest = base_url.partition(":")
    return f"http{colon}{rest}" if scheme.lower() == INSECURE else base_url


def _parts(base_url: str) -> tuple[str, str, str]:
    """Return a URL's scheme, its host with the port, and its path without the last `/`."""
    scheme, _, rest = base_url.partition("://")
    authority, slash, path = rest.partition("/")
    is_plain = is_visible(base_url) and not set(base_url) & set("?#@\\")
    if not is_plain or not authority or scheme.lower() not in _SCHEMES:
        raise _bad_url(base_url)
    return scheme.lower(), authority, (slash + path).rstrip("/")


def _address(base_url: str, authority: str, default_port: int) -> tuple[str, int]:
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):  # a colon of an IPv6 address
        host, port = authority, ""
    is_port = not port or (is_count(port, 5) and 0 < int(port) < 65536)
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    if not is_port or not host or set(host) & set("[]") or (":" in host and not is_bracketed):
        raise _bad_url(base_url)
    return host, int(port or default_port)


def _bad_url(base_url: str) -> BadConfig:
    return BadConfig(
        f"server URL {base_url!r} is not http://HOST:PORT or https://HOST[:PORT], or, where the "
        f"network is trusted with tokens, {INSECURE}://HOST:PORT"
    )


def _left(until: float) -> float:
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


def tls_context() -> ssl.SSLContext:
    """Return what checks servers' certificates and names, as `HttpTransport` says.

    Raises BadConfig.
    """
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
