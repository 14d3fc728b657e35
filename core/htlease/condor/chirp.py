"""Chirp: what a job and its starter tell each other through a socket of the starter's.

Delayed updates, by which `condor_q -af ChirpHTLeasePhase` shows where a job is, are a comfort:
whatever goes wrong is not even worth a message. They need no `+WantIOProxy`, but the attribute's
name must begin with `Chirp`; reading an attribute needs it. Source: the Chirp protocol as in
HTCondor's `htchirp`; measured on 23.9.6 and 25.14.1.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path

from htlease.condor.private_files import read_plain

EXCHANGE_SECONDS = 2.0
_VALUE_MAX_BYTES = 64 * 1024
_CONFIG_MAX_BYTES = 4096
_ANSWER_MAX_BYTES = 32
_SPECIAL = re.compile(r"([\\\s])")


def config_path(environ: Mapping[str, str], sandbox: Path) -> Path | None:
    """Return the chirp configuration of this job, if it has one."""
    named = environ.get("_CONDOR_CHIRP_CONFIG")
    path = Path(named) if named else sandbox / ".chirp.config"
    return path if path.is_file() else None


def set_delayed(config: Path, attributes: Mapping[str, str | int]) -> bool:
    """Set job attributes with the starter's next update; tell whether the starter took them."""
    lines = []
    for name, value in attributes.items():
        literal = str(value) if isinstance(value, int) else f'"{value}"'
        lines.append(f"set_job_attr_delayed {name} {_quoted(literal)}")
    try:
        with _Conversation(config) as conversation:
            return all(conversation.say(line) >= 0 for line in lines)
    except (OSError, ValueError):
        return False


def get_string(config: Path, name: str) -> str | None:
    """Return a string attribute of the job as its shadow has it; None if there is none.

    The answer to a shadow that may not be asked is success with `(null)` or nothing.
    """
    try:
        with _Conversation(config) as conversation:
            size_bytes = conversation.say(f"get_job_attr {name}")
            value = conversation.read(size_bytes) if size_bytes > 0 else ""
    except (OSError, ValueError):
        return None
    is_string = len(value) >= 2 and value[0] == value[-1] == '"'
    return value[1:-1] if is_string else None


class _Conversation:
    """One connection to the starter's proxy; raises OSError and ValueError."""

    def __init__(self, config: Path) -> None:
        host, port, cookie = read_plain(config, _CONFIG_MAX_BYTES).decode().split()[:3]
        self._socket = socket.create_connection((host, int(port)), EXCHANGE_SECONDS)
        self._answers = self._socket.makefile("rb")
        if self.say(f"cookie {_quoted(cookie)}") < 0:
            raise ValueError("the starter refuses the cookie")

    def __enter__(self) -> _Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()

    def say(self, line: str) -> int:
        """Send a request and return its answer, negative for a refusal."""
        self._socket.sendall(line.encode() + b"\n")
        return int(self._answers.readline(_ANSWER_MAX_BYTES))

    def read(self, size_bytes: int) -> str:
        """Read what follows an answer."""
        return self._answers.read(min(size_bytes, _VALUE_MAX_BYTES)).decode(errors="replace")


def _quoted(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
