"""One call that is neither a command nor a matter of routine: who makes it, and with what."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qs

from htlease.errors import InvalidField
from htlease_server.api.queries import LIMIT_DEFAULT, LIMIT_MAX
from htlease_server.auth.principal import Caller
from htlease_server.http.messages import Request


class RequestContext(NamedTuple):
    """What a handler of a read or of an administrative call gets."""

    request: Request
    raw_query: bytes
    #: Admitted, and of a role that may make this call.
    caller: Caller
    parts: tuple[bytes, ...]

    @property
    def via(self) -> bytes | None:
        """The relays that passed the request on, as HTTP's Via names them."""
        return self.request.headers.get(b"via")

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters; raises InvalidField when it is not UTF-8."""
        try:
            text = self.raw_query.decode("ascii")
            pairs = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=20)
        except ValueError:
            raise InvalidField(
                "query", "is not percent-encoded UTF-8 of at most 20 fields"
            ) from None
        return {name: values[-1] for name, values in pairs.items()}

    def number(self, name: str, default: int) -> int:
        """Return a count in the query; raises InvalidField."""
        text = self.query.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 15):
            raise InvalidField(name, f"{text!r} is not a count")
        return int(text)

    @property
    def limit(self) -> int:
        """How many entries a page may have; raises InvalidField."""
        return max(1, min(self.number("limit", LIMIT_DEFAULT), LIMIT_MAX))
