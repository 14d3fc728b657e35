"""One JSON exchange over a unix socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htlease.wire.http11 import BadAnswer, read_answer, request_bytes

ANSWER_MAX_BYTES = 1 << 20
_FIELDS = {"Host": "agent", "Content-Type": "application/json", "Connection": "close"}


def post(
    socket_path: Path, path: str, body: Mapping[str, Any], wait_seconds: float
) -> tuple[int, dict[str, Any]]:
    """Post a document and return status and document of the answer.

    Raises OSError or ValueError. `wait_seconds` limits each wait for the other end, not their sum.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(wait_seconds)
        connection.connect(str(socket_path))
        connection.sendall(request_bytes("POST", path, _FIELDS, json.dumps(body).encode()))
        try:
            answer = read_answer(connection.recv, body_max_bytes=ANSWER_MAX_BYTES)
            document = json.loads(answer.body)
        except (BadAnswer, RecursionError) as error:
            raise ValueError(str(error)) from error
    if not isinstance(document, dict):
        raise ValueError("the answer is no document")
    return answer.status, document
