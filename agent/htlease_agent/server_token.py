"""The agent's own token, looked for again when the server takes it no longer.

An agent runs for months and its token does not last as long: somebody, or a cron job, puts a fresh
one into the file, before the old one expires or after.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from htlease.client.connection import Connection
from htlease.errors import BadConfig
from htlease.wire.transport import Answer, HttpTransport

#: The token has expired or was revoked, or is for less than is asked.
_REFUSALS = (401, 403)

log = logging.getLogger("htlease_agent")


class RenewingTransport:
    """Sends requests under the token that was found last; for any number of threads."""

    def __init__(self, find: Callable[[], Connection], via: str | None = None) -> None:
        """Look for server and token; raises BadConfig. `via` is as for HttpTransport."""
        self._find = find
        self._via = via
        self._connection = find()
        self._transport = self._to(self._connection)

    def exchange(self, method: str, path: str, body: dict[str, Any] | None) -> Answer:
        """Send a request, and once more if it was refused and there is another token by now."""
        used = self._transport
        answer = used.exchange(method, path, body)
        # Another thread may have found the other token meanwhile.
        if answer.status in _REFUSALS and (self._transport is not used or self._has_another()):
            answer = self._transport.exchange(method, path, body)
        return answer

    def _has_another(self) -> bool:
        try:
            found = self._find()
            if found.credential in (None, self._connection.credential):
                return False
            self._transport, self._connection = self._to(found), found
        except BadConfig as error:
            log.warning("the server refuses the agent's token, and there is no other: %s", error)
            return False
        assert found.credential is not None
        log.info("the server refuses the agent's token; goes on with %s", found.credential.source)
        return True

    def _to(self, connection: Connection) -> HttpTransport:
        token = connection.credential.token if connection.credential else None
        return HttpTransport(connection.url, token, via=self._via)
