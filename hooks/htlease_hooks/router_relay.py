"""How a Job Router hook reaches the lease server: through the relay of its access point.

The hook runs as the job's owner and has no credential; the relay's unix socket knows by the kernel
who asks. HTCondor gives these hooks no arguments, so the socket is found beside the hook's link.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htlease_hooks.time_limit import within

#: Beside the link: the relay's socket, or a symbolic link to it.
SOCKET_NAME = "relay.sock"
SOCKET_DEFAULT = Path("/run/htlease/relay.sock")
#: What a relay or a server that does not answer may cost one call of a hook.
WAIT_SECONDS = 5.0
_ANSWER_MAX_BYTES = 1 << 20


class NoRelay(Exception):
    """The relay did not do what it was asked; the message says why."""


@dataclass(frozen=True)
class Relay:
    """The relay behind one socket."""

    socket_path: Path
    wait_seconds: float = WAIT_SECONDS

    @classmethod
    def beside(cls, link: Path) -> Relay:
        """Return the relay of the hook that was called by this name."""
        near = link.parent / SOCKET_NAME
        return cls(near if near.exists() else SOCKET_DEFAULT)

    def ask(self, step: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post to `/v1/routes/STEP` and return the answer's document; raises NoRelay."""
        try:
            status, document = within(self.wait_seconds, lambda: self._exchange(step, body))
        except (OSError, ValueError, TimeoutError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NoRelay(f"the relay at {self.socket_path} does not answer: {why}") from error
        if status != 200:
            raise NoRelay(f"the relay answers {status}: {document.get('detail')}")
        return document

    def _exchange(self, step: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        connection = _Connection(self.socket_path, self.wait_seconds)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", f"/v1/routes/{step}", json.dumps(body), headers)
            response = connection.getresponse()
            document = json.loads(response.read(_ANSWER_MAX_BYTES))
        finally:
            connection.close()
        if not isinstance(document, dict):
            raise ValueError("no document")
        return response.status, document


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("relay", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
