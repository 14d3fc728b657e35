"""The file of a SQLite store, held by one server on the machine, by whatever path it was found.

Links and bind mounts are further names of one file, so the lock is on the file itself. A file
beside it (`.lock`) is locked as well: it stands for the path, whatever lies there, and keeps when
the last server lived.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import NamedTuple

from htlease.errors import BadConfig
from htlease_server.store.base import Displaced


class FileId(NamedTuple):
    """What tells a file from every other one while the machine is up."""

    device: int
    inode: int

    @classmethod
    def at(cls, path: Path) -> FileId | None:
        """Return the file that has this very name now, if there is one."""
        try:
            found = os.lstat(path)
        except OSError:
            return None
        return cls(found.st_dev, found.st_ino)


class StoreFile:
    """The main file of a store, locked; raises BadConfig.

    Whoever closes any descriptor of a file drops all locks that the process has on it by `fcntl`,
    as SQLite has. So nothing else in the process opens the file but SQLite, and this is closed
    after SQLite's connections.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as problem:
            raise _not_writable(path, problem) from problem
        try:
            found = os.fstat(self._fd)
            self.id = FileId(found.st_dev, found.st_ino)
            _refuse_odd(path, found)
            _lock(path, self._fd)
            if not found.st_size:
                belong_with(self._fd, path.parent)
        except BaseException:
            os.close(self._fd)
            raise

    def check(self) -> None:
        """Raise Displaced when the path leads to another file, or to none."""
        check_in_place(self._path, self.id)

    def close(self) -> None:
        """Let others have it; only after every connection of this process to it."""
        os.close(self._fd)


class Hold:
    """Keeps servers and other commands off a store; raises BadConfig."""

    def __init__(self, path: Path, is_made: bool = False) -> None:
        """Make an empty file where there is none, if so told."""
        #: Where the last server's sign of life is kept.
        self.stamp_fd = _lock_beside(path)
        self.file: StoreFile | None = None
        try:
            if is_made or path.exists():
                self.file = StoreFile(path)
        except BaseException:
            os.close(self.stamp_fd)
            raise

    def close(self) -> None:
        """Let go, after every connection of this process to the store."""
        if self.file is not None:
            self.file.close()
        os.close(self.stamp_fd)


class LogFiles:
    """The files that SQLite keeps beside the main one; a removed one is written to all the same."""

    def __init__(self, path: Path) -> None:
        self._paths = log_files(path)
        self._ids: list[FileId | None] | None = None

    def check(self) -> None:
        """Raise Displaced when they are not those of the first call any more."""
        ids = [FileId.at(path) for path in self._paths]
        if self._ids is None:
            self._ids = ids
        for path, before, now in zip(self._paths, self._ids, ids, strict=True):
            if before != now:
                raise Displaced(f"{path} was removed or replaced under the server that uses it")


def log_files(path: Path) -> tuple[Path, Path]:
    """Return the names of the files that SQLite keeps beside a store."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def check_in_place(path: Path, id: FileId) -> None:
    """Raise Displaced when a path leads to another file than that, or to none."""
    found = FileId.at(path)
    if found != id:
        what = "was removed" if found is None else "was replaced by another file"
        raise Displaced(f"store {path} {what} under the server that uses it")


def refuse_other_names(path: Path) -> None:
    """Raise BadConfig for a file with several names; what one wrote by one the next misses."""
    _refuse_odd(path, path.stat())


def belong_with(file: int | Path, directory: Path) -> None:
    """Give what root has made to the directory's owner, who is to go on with it; raises OSError.

    Root works where a service of another user has its store. SQLite does the same with `-wal`.
    """
    if os.geteuid() == 0:
        owner = directory.stat()
        if isinstance(file, int):
            os.fchown(file, owner.st_uid, owner.st_gid)
        else:
            # The owner may have put a link there meanwhile.
            os.chown(file, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _refuse_odd(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise BadConfig(f"store {path} is no file; name another with --store")
    if found.st_nlink > 1:
        raise BadConfig(
            f"store {path} has {found.st_nlink} names (hard links), each with a log of its own:"
            f" remove all but the one that it was served by; `find / -xdev -inum {found.st_ino}`"
            " lists them"
        )


def _lock_beside(path: Path) -> int:
    lock_path = path.with_name(path.name + ".lock")
    try:
        fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as problem:
        raise _not_writable(path, problem) from problem
    try:
        belong_with(fd, path.parent)
        _lock(path, fd)
    except OSError as problem:
        os.close(fd)
        raise _not_writable(path, problem) from problem
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lock(path: Path, fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        raise BadConfig(
            f"store {path} is in use by another htlease server; stop that one first, or name"
            " another store with --store"
        ) from problem


def _not_writable(path: Path, problem: OSError) -> BadConfig:
    return BadConfig(
        f"store {path} cannot be written: {problem.strerror}; make its directory, writable"
        " for you, or name another store with --store"
    )
