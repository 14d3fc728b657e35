"""Files that hold a secret: made with mode 0600, and refused when others can read them."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from htlease.errors import BadConfig

_SECRET_MIN_CHARS = 16
_SECRET_MAX_BYTES = 4096
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        fd = os.open(temporary, _NEW, 0o600)
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
    """Return the secret in a file; raises BadConfig when others can read it, or it is none.

    The directory may be one where others can write: what is no file is not waited for, and what
    somebody else has put there, a link too, is not believed.
    """
    try:
        owners = (os.geteuid(), 0, path.parent.stat().st_uid)
        is_foreign = path.lstat().st_uid not in owners
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            is_file = stat.S_ISREG(status.st_mode)
            data = file.read(_SECRET_MAX_BYTES + 1) if is_file else b""
        secret = data.decode().strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadConfig(f"{what} {path} cannot be read: {problem}") from problem
    if not is_file:
        raise BadConfig(f"{what} {path} is no regular file; remove it to get a new one")
    if is_foreign or status.st_uid not in owners:
        raise BadConfig(
            f"{what} {path} belongs to somebody else; remove it to get a new one, or run"
            f" `chown {os.geteuid()} {path}` if it is the one you want"
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise BadConfig(
            f"{what} {path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o}); run"
            f" `chmod 600 {path}`, and remove it to get a new one if others may have seen it"
        )
    if len(data) > _SECRET_MAX_BYTES:
        raise BadConfig(
            f"{what} {path} has more than {_SECRET_MAX_BYTES} bytes; it holds no secret"
        )
    if len(secret) < _SECRET_MIN_CHARS:
        raise BadConfig(f"{what} {path} is empty or too short; remove it to get a new one")
    return secret
