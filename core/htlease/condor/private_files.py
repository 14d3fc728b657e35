"""Our files in a scratch directory where others may write too.

Only regular files are read that this user, the directory's owner or root made, and only up to a
size; no symbolic link is followed and nothing is waited for. A file appears whole or not at all,
in place of whatever had its name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

#: What the names of our private folders begin with; a folder of that name may be somebody else's.
PRIVATE_PREFIX = ".htlease"
_OTHERS_MAY_WRITE = 0o022


def read_own(path: Path, max_bytes: int) -> bytes:
    """Return a file's content; raises OSError, for what is none of ours and for too much too."""
    with _folder(path.parent) as (folder, owners):
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        descriptor = os.open(path.name, flags, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refused(path, "is no regular file")
        if status.st_uid not in owners:
            raise _refused(path, "belongs to somebody else")
        return _read(file, path, max_bytes)


def read_plain(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file, whoever made it, by any link; raises OSError."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _refused(path, "is no regular file")
        return _read(file, path, max_bytes)


def replace_own(path: Path, data: bytes) -> None:
    """Make a file of mode 0600 with this content, in one step; raises OSError."""
    temporary = f"{path.name}.{os.urandom(6).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _folder(path.parent) as (folder, _):
        descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            _rename(folder, temporary, path.name)
        except OSError:
            os.unlink(temporary, dir_fd=folder)
            raise


def make_private_folder(path: Path) -> None:
    """Make a folder of mode 0700 unless it is there; raises OSError when it is not ours alone."""
    try:
        path.mkdir(mode=0o700)
        return
    except FileExistsError:
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            path.mkdir(mode=0o700)
            return
    with _folder(path):
        pass


def remove_private_folder(path: Path) -> None:
    """Remove a folder and the files in it; raises OSError when it has folders or is not ours."""
    with _folder(path) as (folder, _):
        for name in os.listdir(folder):  # noqa: PTH208  (by descriptor)
            os.unlink(name, dir_fd=folder)
    path.rmdir()


def opened_own(path: Path, flags: int) -> int:
    """Open a file of ours, made with mode 0600 where it is absent; raises OSError."""
    more = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with _folder(path.parent) as (folder, owners):
        descriptor = os.open(path.name, flags | more, 0o600, dir_fd=folder)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_uid in owners:
        return descriptor
    os.close(descriptor)
    raise _refused(path, "is no regular file of this user")


def owners_in(sandbox: Path) -> tuple[int, ...]:
    """Return whose files in a scratch directory are believed."""
    return (os.geteuid(), 0, sandbox.stat().st_uid)


@contextmanager
def _folder(path: Path) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Open a folder and tell whose files in it count; a private one has to be private."""
    is_private = path.name.startswith(PRIVATE_PREFIX)
    owners = owners_in(path.parent if is_private else path)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    descriptor = os.open(path, flags | (os.O_NOFOLLOW if is_private else 0))
    try:
        status = os.fstat(descriptor)
        if is_private and (status.st_uid not in owners or status.st_mode & _OTHERS_MAY_WRITE):
            raise _refused(path, "is no folder of this user alone")
        yield descriptor, owners
    finally:
        os.close(descriptor)


def _read(file: BinaryIO, path: Path, max_bytes: int) -> bytes:
    data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"has more than {max_bytes} bytes", str(path))
    return data


def _rename(folder: int, before: str, after: str) -> None:
    try:
        os.rename(before, after, src_dir_fd=folder, dst_dir_fd=folder)
    except IsADirectoryError:
        os.rmdir(after, dir_fd=folder)  # no more than an empty one
        os.rename(before, after, src_dir_fd=folder, dst_dir_fd=folder)


def _refused(path: Path, text: str) -> OSError:
    return OSError(errno.EPERM, text, str(path))
