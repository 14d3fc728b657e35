"""Delayed chirp updates, by which `condor_q -af ChirpHTLeasePhase` shows where a job is.

A comfort and nothing else: whatever goes wrong here is not even worth a message.
Source: the Chirp protocol as in HTCondor's `htchirp`; delayed updates need no `+WantIOProxy`, and
the attribute's name must begin with `Chirp`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path

EXCHANGE_SECONDS = 2.0
_SPECIAL = re.compile(r"([\\\s])")


def config_path(environ: Mapping[str, str], sandbox: Path) -> Path | None:
    """Return the chirp configuration of this job, if it has one."""
    named = environ.get("_CONDOR_CHIRP_CONFIG")
    path = Path(named) if named else sandbox / ".chirp.config"
    return path if path.is_file() else None


def set_delayed(config: Path, attributes: Mapping[str, str | int]) -> bool:
    """Set job attributes with the starter's next update; tell whether the starter took them."""
    try:
        host, port, cookie = config.read_text().split()[:3]
        lines = [f"cookie {_quoted(cookie)}"]
        for name, value in attributes.items():
            literal = str(value) if isinstance(value, int) else f'"{value}"'
            lines.append(f"set_job_attr_delayed {name} {_quoted(literal)}")
        with socket.create_connection((host, int(port)), EXCHANGE_SECONDS) as connection:
            answers = connection.makefile("rb")
            for line in lines:
                connection.sendall(line.encode() + b"\n")
                if int(answers.readline()) < 0:
                    return False
        return True
    except (OSError, ValueError):
        return False


def _quoted(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
