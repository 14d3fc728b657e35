"""Files that hold a secret: made with mode 0600, and refused when others can read them."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from htlease.errors import BadConfig

_SECRET_MIN_CHARS = 16


def read_or_make_secret(path: Path, what: str) -> str:
    """Return the secret in a file that only its owner can read; make it when it is absent."""
    if not path.exists():  # a full disk is to keep no server from starting again
        try:
            return make_secret(path, what)
        except FileExistsError:
            pass
    return read_secret(path, what)


def make_secret(path: Path, what: str) -> str:
    """Put a new secret into a new file; raises FileExistsError or BadConfig.

    The file appears with all of its content: other servers may be looking for it.
    """
    secret = secrets.token_urlsafe(32)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "w") as file:
                file.write(secret + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        finally:
            temporary.unlink()
    except FileExistsError:
        raise
    except OSError as problem:
        raise BadConfig(
            f"{what} {path} cannot be made: {problem.strerror}; make its directory writable, or"
            " name another file"
        ) from problem
    return secret


def read_secret(path: Path, what: str) -> str:
    """Return the secret in a file; raises BadConfig when others can read it, or it is none."""
    try:
        mode = path.stat().st_mode
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadConfig(f"{what} {path} cannot be read: {problem}") from problem
    if stat.S_IMODE(mode) & 0o077:
        raise BadConfig(
            f"{what} {path} can be read by others (mode {stat.S_IMODE(mode):04o}); run"
            f" `chmod 600 {path}`, and remove it to get a new one if others may have seen it"
        )
    if len(secret) < _SECRET_MIN_CHARS:
        raise BadConfig(f"{what} {path} is empty or too short; remove it to get a new one")
    return secret
