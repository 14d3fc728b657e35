"""Lets the access point and the job user at a directory of this machine. Runs on the host."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
from pathlib import Path

from .enclosure import shareable
from .errors import PoolError
from .files import JOB_USER_ID
from .pool import Pool

# Of linux/mount.h and the table of system calls, which is the same on all machines for these two.
_OPEN_TREE, _MOVE_MOUNT = 428, 429
_OPEN_TREE_CLONE, _AT_RECURSIVE, _AT_FDCWD, _MOVE_MOUNT_F_EMPTY_PATH = 1, 0x8000, -100, 4
# $1 the mount as a descriptor, $2 where it shall be.
_ATTACH = f"""\
import ctypes, os, sys
os.umask(0o022)
os.makedirs(sys.argv[2], exist_ok=True)
moved = ctypes.CDLL(None, use_errno=True).syscall(
    {_MOVE_MOUNT}, int(sys.argv[1]), b"", {_AT_FDCWD}, os.fsencode(sys.argv[2]),
    {_MOVE_MOUNT_F_EMPTY_PATH})
if moved:
    sys.exit(os.strerror(ctypes.get_errno()))
"""
_MAY = 'test -x "$1" && test -r "$1" && test -w "$1"'


def check(directory: Path) -> Path:
    """Return a directory that can be shared with job user and access point; raises PoolError."""
    found = shareable(directory.resolve())
    if found == Path.home().resolve():
        raise PoolError(
            f"{found} is a home directory, in which nobody else may write: share a folder below it."
        )
    return found


def share(pool: Pool, directory: Path) -> None:
    """Show a directory to the access point at the same path, and let the job user write in it.

    Where root runs the pool the directory's group becomes the job user's, which may then write in
    it; its owner, its files and the folders below stay as they are. Raises PoolError.
    """
    directory = check(directory)
    if os.geteuid() == 0:
        _let_write(directory)
    if not pool.shows(directory):
        pid = pool.state()["pid"]
        _show(pid, directory)
        pool.record(shared=[*pool.state()["shared"], str(directory)])
    if pool.run(["sh", "-c", _MAY, "sh", str(directory)], check=False).returncode:
        raise PoolError(
            f"The job user, {pool.job_user}, cannot get into {directory}: share a folder that is "
            "in none that is closed to others, such as one in /srv."
        )


def _let_write(directory: Path) -> None:
    found = directory.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == JOB_USER_ID or mode & 0o007 == 0o007:
        return
    os.chown(directory, -1, JOB_USER_ID)
    # What is made in it later shall have this group as well.
    directory.chmod(mode | stat.S_ISGID | 0o070)


def _show(pid: int, directory: Path) -> None:
    """Attach a copy of the mount in the mount namespace of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    tree = libc.syscall(
        _OPEN_TREE, _AT_FDCWD, os.fsencode(directory), _OPEN_TREE_CLONE | _AT_RECURSIVE
    )
    if tree < 0:
        raise _not_now(directory, os.strerror(ctypes.get_errno()))
    try:
        enter = ["nsenter", "--target", str(pid), "--mount", "--"]
        done = subprocess.run(
            [*enter, "python3", "-I", "-c", _ATTACH, str(tree), str(directory)],
            pass_fds=[tree],
            cwd="/",
            capture_output=True,
            text=True,
        )
    finally:
        os.close(tree)
    if done.returncode:
        raise _not_now(directory, done.stderr.strip())


def _not_now(directory: Path, why: str) -> PoolError:
    return PoolError(
        f"{directory} cannot be shown to a pool that is up ({why}): "
        f"`down`, and then `up --share {directory}`."
    )
