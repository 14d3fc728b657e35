"""A forward proxy as the environment names it, and a tunnel through it; loaded where one is named.

The variables are curl's: `https_proxy`, `http_proxy` (lower case only, since a CGI server lets
callers set `HTTP_PROXY`), `all_proxy` and `no_proxy`.
"""

from __future__ import annotations

import binascii

from htlease.wire.http11 import (
    BadAnswer,
    is_count,
    is_loopback,
    is_visible,
    read_tunnel_status,
    request_bytes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_VARIABLES = {
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
    "http": ("http_proxy", "all_proxy", "ALL_PROXY"),
}
_PORT = 80


class Proxy:
    """A proxy that takes CONNECT over plain HTTP."""

    def __init__(
        self, host: str, port: int, authorization: str | None, variable: str, url: str
    ) -> None:
        self.host = host
        self.port = port
        #: Value of `Proxy-Authorization`; a secret.
        self.authorization = authorization
        #: The variable that names it, for messages: its value may hold a password.
        self.variable = variable
        #: As other HTTP clients take it, a password included.
        self.url = url

    def __str__(self) -> str:
        return f"proxy {self.host}:{self.port} that {self.variable} names"


class ProxyUnusable(OSError):
    """The proxy does not lead to the server, for a reason other than the network's."""


def named_proxy(environ: Mapping[str, str], is_tls: bool, host: str, port: int) -> Proxy | None:
    """Return the proxy that an environment names for a server, or None for a direct connection.

    This machine itself is never asked for by a proxy.

    Raises ProxyUnusable for one of a kind that is not spoken, such as socks5.
    """
    variables = _VARIABLES["https" if is_tls else "http"]
    variable = next((name for name in variables if environ.get(name, "").strip()), None)
    excepted = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if variable is None or is_loopback(host) or is_excepted(excepted, host, port):
        return None
    return _read(variable, environ[variable].strip())


def is_excepted(no_proxy: str, host: str, port: int) -> bool:
    """Tell whether `no_proxy` names a host: itself, its domain, its network, or `*`.

    Entries are parted by commas or blanks; one may end with `:PORT`, and begin with a dot, which
    means nothing. Networks are written 10.0.0.0/8.
    """
    host = host.lower().rstrip(".")
    return any(_names(entry, host, port) for entry in no_proxy.lower().replace(",", " ").split())


def open_tunnel(
    send: Callable[[bytes], None],
    receive: Callable[[int], bytes],
    proxy: Proxy,
    host: str,
    port: int,
) -> None:
    """Let the proxy at the other end of a connection lead it to a server.

    `receive` bounds the time. Raises ProxyUnusable, and what `send` and `receive` raise.
    """
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    fields = {"Host": authority}
    if proxy.authorization is not None:
        fields["Proxy-Authorization"] = proxy.authorization
    send(request_bytes("CONNECT", authority, fields, b""))
    try:
        status = read_tunnel_status(receive)
    except BadAnswer as error:
        raise ProxyUnusable(f"its answer to CONNECT: {error}") from error
    if status == 407:
        raise ProxyUnusable(f"it wants a user and password in {proxy.variable} (407)")
    if not 200 <= status < 300:
        raise ProxyUnusable(f"it refuses to CONNECT to {authority} ({status})")


def _read(variable: str, value: str) -> Proxy:
    scheme, separator, rest = value.rpartition("://")
    if separator and scheme.lower() != "http":
        raise ProxyUnusable(f"{variable}: of proxies only http://HOST:PORT is spoken, not {scheme}")
    user, at, authority = rest.partition("/")[0].rpartition("@")
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = authority, ""
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_port = not port or (is_count(port, 5) and 0 < int(port) < 65536)
    if not is_port or not is_visible(host):
        raise ProxyUnusable(f"{variable} is not http://[USER:PASSWORD@]HOST:PORT")
    authorization = None
    if at:
        from urllib.parse import unquote_to_bytes

        encoded = binascii.b2a_base64(unquote_to_bytes(user), newline=False).decode()
        authorization = f"Basic {encoded}"
    return Proxy(host, int(port or _PORT), authorization, variable, f"http://{rest}")


def _names(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return _holds(entry, host)
    name, colon, entry_port = entry.rpartition(":")
    has_port = bool(colon) and (name.endswith("]") or ":" not in name)  # else it is IPv6
    if has_port:
        if entry_port != str(port):
            return False
        entry = name
    entry = entry.strip("[]").strip(".")
    is_address = ":" in host or host.replace(".", "").isdigit()
    return bool(entry) and (host == entry or (not is_address and host.endswith(f".{entry}")))


def _holds(network: str, host: str) -> bool:
    from ipaddress import ip_address, ip_network

    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False  # a name, or no network
