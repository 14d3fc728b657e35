"""What HTTP/1.1 asks of a request's head beyond the grammar, which the parser checks; pure.

Source: RFC 9110 and RFC 9112, by the sections named below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from htlease.rules import messages as m

#: Request line and headers; a SciToken has a few KiB.
HEAD_MAX_BYTES = 32 * 1024
FIELDS_MAX = 100

HEAD_TOO_LARGE = m.Rejection(
    "too-large",
    f"request line and headers have more than {HEAD_MAX_BYTES} bytes or {FIELDS_MAX} fields",
)
NO_HTTP = m.Rejection("invalid", "this is not a request of HTTP/1.1", field="request")

_VERSIONS = ("1.1", "1.0")
#: uri-host [ ":" port ] of RFC 9110 7.2; a client without an authority sends it empty.
_HOST = re.compile(rb"(?:\[[0-9A-Za-z:.%]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
_ABSOLUTE = re.compile(rb"https?://[^/?#]+", re.IGNORECASE)


def why_no_request(
    version: str, headers: Mapping[bytes, bytes], has_two_hosts: bool
) -> m.Rejection | None:
    """Return why a head makes no request, after which the connection has to be closed."""
    if version not in _VERSIONS:
        return _invalid(f"HTTP/{version} is not spoken here, but HTTP/1.1")
    host = headers.get(b"host")
    if host is None:
        if version == "1.1":  # RFC 9112 3.2
            return _invalid("the Host field is missing")
    elif has_two_hosts or _HOST.fullmatch(host) is None:
        return _invalid("the Host field is not one host")
    coding = headers.get(b"transfer-encoding")
    return None if coding is None else _why_not_coded(version, coding)


def _why_not_coded(version: str, coding: bytes) -> m.Rejection | None:
    """Return what is wrong with a Transfer-Encoding (RFC 9112 6.1, 6.3)."""
    if version == "1.0":
        return _invalid("Transfer-Encoding came with HTTP/1.0, so the end of the body is in doubt")
    codings = [part.strip().lower() for part in coding.split(b",")]
    if codings == [b"chunked"]:
        return None
    if codings.count(b"chunked") == 1 and codings[-1] == b"chunked":
        return m.Rejection(
            "not-implemented", "of transfer codings only chunked is known; send the body as it is"
        )
    return _invalid("the end of the body cannot be told from Transfer-Encoding")


def is_continue_expected(version: str, headers: Mapping[bytes, bytes]) -> bool:
    """Tell whether the client waits for a 100 (RFC 9110 10.1.1), which HTTP/1.0 does not know."""
    return version == "1.1" and headers.get(b"expect", b"").strip().lower() == b"100-continue"


def path_of(target: bytes) -> bytes:
    """Return path and query of a request target, of its absolute form too (RFC 9112 3.2.2)."""
    if target.startswith(b"/"):
        return target
    found = _ABSOLUTE.match(target)
    if found is None:
        return target
    path = target[found.end() :]
    return path if path.startswith(b"/") else b"/" + path


def without_upgrade(method: bytes, target: bytes, headers: Mapping[bytes, bytes]) -> bytes:
    """Return a head again, without the wish for another protocol (RFC 9110 7.8).

    The parser takes what follows such a head for the other protocol, although it is the body.
    """
    lines = [b"%b %b HTTP/1.1" % (method, target)]
    for name, value in headers.items():
        if name == b"connection":
            options = [option.strip() for option in value.split(b",")]
            value = b", ".join(option for option in options if option.lower() != b"upgrade")
        if name != b"upgrade":
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join([*lines, b"", b""])


def _invalid(detail: str) -> m.Rejection:
    return m.Rejection("invalid", detail, field="request")
