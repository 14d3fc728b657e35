"""Whether the agent that condor_master is to run is there: by its socket, its process, its log."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from htlease.condor.condor_config import CondorConfig

_ANSWER_SECONDS = 3.0
#: An agent that condor_master starts again and again is there for moments.
_SETTLE_SECONDS = 2.0
_TAIL_BYTES = 4096
_PEER = struct.Struct("3i")
_OPTION = re.compile(r"--(socket|log)=(\S+)")


@dataclass(frozen=True)
class AgentState:
    """What one look at an agent found."""

    socket: str
    is_answering: bool
    #: Where it writes down what it does; None in a configuration that does not say.
    log: str | None = None
    #: The last line there.
    last_words: str = ""


def agent_state(config: CondorConfig, values: Mapping[str, str]) -> AgentState | None:
    """Look at the agent of this machine; None where there is to be none, and for an image."""
    if "HTLEASE_AGENT" not in values or config.root != Path("/"):
        return None
    given = dict(_OPTION.findall(values.get("HTLEASE_AGENT_ARGS", "")))
    place, log = given.get("socket"), given.get("log")
    if place is None:
        return None
    first = _answering_process(place)
    is_there = first is not None
    if is_there:
        time.sleep(_SETTLE_SECONDS)
        is_there = _answering_process(place) == first
    return AgentState(place, is_there, log, "" if is_there or log is None else _last_line(log))


def _answering_process(place: str) -> int | None:
    """Return the process that speaks HTTP at a unix socket; None when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_ANSWER_SECONDS)
        try:
            asking.connect(place)
            asking.sendall(b"GET / HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
            if not asking.recv(16).startswith(b"HTTP/1.1 "):
                return None
            peer = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        except OSError:
            return None
    return int(_PEER.unpack(peer)[0])


def _last_line(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError as error:
        return f"({error.strerror})"
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
