"""One JSON exchange over a unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ANSWER_MAX_BYTES = 1 << 20


def post(
    socket_path: Path, path: str, body: Mapping[str, Any], wait_seconds: float
) -> tuple[int, dict[str, Any]]:
    """Post a document and return status and document of the answer.

    Raises OSError or ValueError. `wait_seconds` limits each wait for the other end, not their sum.
    """
    connection = _UnixConnection(socket_path, wait_seconds)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        document = json.loads(response.read(ANSWER_MAX_BYTES))
    except http.client.HTTPException as error:
        raise ValueError(str(error) or type(error).__name__) from error
    finally:
        connection.close()
    if not isinstance(document, dict):
        raise ValueError("the answer is no document")
    return response.status, document


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("relay", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
