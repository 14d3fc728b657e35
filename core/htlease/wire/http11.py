"""HTTP/1.1 as a caller speaks it: the bytes of a request, and an answer read off a stream.

Strict, since the other end may be anything: what is not plainly one whole answer is none. Nothing
of an answer but its status, fields and body is acted upon; redirects are not followed. Own code,
because to load `http.client` costs a hook a quarter of its time (docs/decisions/0011).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Of the status line and all fields together, and of a chunked answer's last fields.
HEAD_MAX_BYTES = 64 * 1024
FIELDS_MAX = 100
BODY_MAX_BYTES = 64 * 1024 * 1024
_SIZE_LINE_MAX_BYTES = 1024
#: Answers 1xx, after which another follows.
_INTERIM_MAX = 10
_READ_BYTES = 64 * 1024

# Sets and slices: to compile expressions for these would take longer than an exchange.
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_HEX = frozenset(b"0123456789ABCDEFabcdef")
_LENGTH_DIGITS_MAX = 15
_SIZE_DIGITS_MAX = 12
#: All below the blank but the tabulator, and DEL.
_CONTROLS = bytes({*range(32), 127} - {9})


class BadAnswer(Exception):
    """What came is no whole answer; the text says why."""


class Closed(BadAnswer):
    """The other end closed the connection instead of answering."""


class RawAnswer:
    """One answer."""

    def __init__(
        self, status: int, fields: Mapping[str, str], body: bytes, is_reusable: bool
    ) -> None:
        self.status = status
        #: By name in lower case; of a name that came several times, the values with commas.
        self.fields = fields
        self.body = body
        #: Whether another request may follow on the same connection.
        self.is_reusable = is_reusable


def request_bytes(method: str, target: str, fields: Mapping[str, str], body: bytes) -> bytes:
    """Return a request; raises ValueError for what could be read as something else than it is."""
    is_target = target.startswith("/") or method == "CONNECT"
    if not _is_token(method.encode()) or not is_target or not is_visible(target):
        raise ValueError(f"{method!r} {target!r} is no request")
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in fields.items():
        if not _is_token(name.encode()) or not is_visible(value.replace(" ", "")):
            raise ValueError(f"the field {name!r} cannot be sent")  # the value may be a secret
        lines.append(f"{name}: {value}")
    if body or method not in ("GET", "CONNECT"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def is_visible(text: str) -> bool:
    """Tell whether a text is one word of ASCII, and so can begin or end nothing in a head."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def read_answer(
    receive: Callable[[int], bytes], *, body_max_bytes: int = BODY_MAX_BYTES
) -> RawAnswer:
    """Read one answer; `receive(n)` returns up to n bytes, none at the end of the stream.

    Raises BadAnswer, Closed if nothing came at all, and what `receive` raises.
    """
    return _Reader(receive, body_max_bytes).answer()


def read_tunnel_status(receive: Callable[[int], bytes]) -> int:
    """Read the answer to a CONNECT and return its status; of one below 300 nothing may follow.

    Raises BadAnswer, and what `receive` raises.
    """
    return _Reader(receive, 0).tunnel_status()


def is_count(text: str, digits_max: int) -> bool:
    """Tell whether a text is a whole number of so many digits at most."""
    return text.isascii() and text.isdigit() and len(text) <= digits_max


def _is_token(word: bytes) -> bool:
    return bool(word) and _TOKEN.issuperset(word)


def _has_controls(line: bytes) -> bool:
    return len(line.translate(None, _CONTROLS)) != len(line)


class _Reader:
    def __init__(self, receive: Callable[[int], bytes], body_max_bytes: int) -> None:
        self._receive = receive
        self._body_max_bytes = body_max_bytes
        self._held = bytearray()

    def answer(self) -> RawAnswer:
        minor, status, fields = self._final_head()
        body, has_end = self._body(minor, status, fields)
        words = [word.strip().lower() for word in fields.get("connection", "").split(",")]
        is_reusable = minor == 1 and has_end and "close" not in words and not self._held
        return RawAnswer(status, fields, body, is_reusable)

    def tunnel_status(self) -> int:
        _, status, _ = self._final_head()
        if status < 300 and self._held:
            raise BadAnswer("bytes follow that no server has sent yet")
        return status

    # Parts

    def _final_head(self) -> tuple[int, int, dict[str, str]]:
        for _ in range(_INTERIM_MAX):
            minor, status, fields = self._head()
            if status >= 200:
                return minor, status, fields
            if status == 101:
                raise BadAnswer("it changes to a protocol that nobody asked for")
        raise BadAnswer("it goes on announcing an answer that does not come")

    def _head(self) -> tuple[int, int, dict[str, str]]:
        # The status line alone first: what is no HTTP at all may never bring an empty line.
        line = self._line(HEAD_MAX_BYTES, begins_with=b"HTTP/1.")
        minor, status = line[7:9], line[9:12]
        is_number = len(status) == 3 and status.isdigit() and status >= b"100"
        is_over = line[12:13] in (b"", b" ")  # a reason may follow, which is for people
        if minor not in (b"0 ", b"1 ") or not is_number or not is_over or _has_controls(line):
            raise BadAnswer("it does not begin as HTTP/1.1 does")
        return int(minor), int(status), self._fields(HEAD_MAX_BYTES - len(line))

    def _fields(self, left_bytes: int) -> dict[str, str]:
        fields: dict[str, str] = {}
        for _ in range(FIELDS_MAX + 1):
            line = self._line(left_bytes)
            left_bytes -= len(line) + 2
            if not line:
                return fields
            before, colon, after = line.partition(b":")
            if not colon or not _is_token(before) or _has_controls(after):
                raise BadAnswer("its head has a line that is no field")
            name, value = before.decode().lower(), after.decode("latin-1").strip(" \t")
            # Two lengths make none that is a number, as two encodings make none that is known.
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        raise BadAnswer(f"its head has more than {FIELDS_MAX} fields")

    def _body(self, minor: int, status: int, fields: Mapping[str, str]) -> tuple[bytes, bool]:
        """Return the body, and whether anything but the connection's end told its length."""
        length, encoding = fields.get("content-length"), fields.get("transfer-encoding")
        if encoding is not None and (
            length is not None or minor == 0 or encoding.lower() != "chunked"
        ):
            raise BadAnswer("where it ends cannot be told")
        if length is not None and not is_count(length, _LENGTH_DIGITS_MAX):
            raise BadAnswer("its length is no number")
        if status in (204, 304):
            return b"", True
        if encoding is not None:
            return self._chunks(), True
        if length is not None:
            return self._exactly(self._allowed(int(length))), True
        return self._rest(), False

    def _chunks(self) -> bytes:
        body = bytearray()
        while True:
            digits, _, extension = self._line(_SIZE_LINE_MAX_BYTES).partition(b";")
            digits = digits.rstrip(b" \t")
            is_number = 0 < len(digits) <= _SIZE_DIGITS_MAX and _HEX.issuperset(digits)
            if not is_number or _has_controls(extension):
                raise BadAnswer("a part of it has no size")
            size = int(digits, 16)
            if size == 0:
                self._fields(HEAD_MAX_BYTES)
                return bytes(body)
            self._allowed(len(body) + size)
            body += self._exactly(size)
            if self._exactly(2) != b"\r\n":
                raise BadAnswer("a part of it is longer than it says")

    def _allowed(self, size: int) -> int:
        if size > self._body_max_bytes:
            raise BadAnswer(f"it has more than {self._body_max_bytes} bytes")
        return size

    # The stream

    def _more(self) -> bool:
        data = self._receive(_READ_BYTES)
        self._held += data
        return bool(data)

    def _line(self, most_bytes: int, begins_with: bytes = b"") -> bytes:
        looked_at = 0
        while True:
            end = self._held.find(b"\r\n", looked_at)
            if not self._held.startswith(begins_with[: len(self._held)]):
                raise BadAnswer("it does not begin as HTTP/1.1 does")
            if end > most_bytes or (end < 0 and len(self._held) > most_bytes):
                raise BadAnswer(f"a line, or its head, has more than {most_bytes} bytes")
            if end >= 0:
                line = bytes(self._held[:end])
                del self._held[: end + 2]
                return line
            looked_at = max(0, len(self._held) - 1)
            if not self._more():
                if begins_with and not self._held:
                    raise Closed("the connection was closed without an answer")
                raise BadAnswer("it broke off")

    def _exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            if not self._more():
                raise BadAnswer("it broke off")
        data = bytes(self._held[:size])
        del self._held[:size]
        return data

    def _rest(self) -> bytes:
        is_over = False
        while not is_over:
            self._allowed(len(self._held))
            is_over = not self._more()
        return bytes(self._held)


def is_loopback(host: str) -> bool:
    """Tell whether a host, as it stands in a URL, is this machine by its very name or address."""
    is_ipv4 = host.replace(".", "").isdigit()
    return host.lower() in ("localhost", "::1") or (is_ipv4 and host.startswith("127."))
