"""Enters an unpacked image as container runtimes do, in name spaces of its own. Needs Linux only.

The root is a tmpfs on which the image's top folders are mounted, so that any path can be mounted
into it without changing the image.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

NEW_MOUNTS, NEW_NAMES, NEW_USERS, NEW_PIDS = 0x20000, 0x4000000, 0x10000000, 0x20000000
_BIND, _RECURSIVE, _PRIVATE = 4096, 1 << 14, 1 << 18
_NO_NEW_PRIVILEGES = 38
_LIBC = ctypes.CDLL(None, use_errno=True)
#: Of the file systems that are mounted here, empty at first.
_OWN_DEVICES: set[int] = set()


def unshare(flags: int) -> None:
    """Leave name spaces; raises OSError."""
    _checked(_LIBC.unshare(flags), "unshare")


def become_own_user() -> None:
    """Enter a user name space in which the user is who it was, and may mount."""
    user, group = os.geteuid(), os.getegid()
    unshare(NEW_USERS | NEW_MOUNTS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def assemble(image: Path, binds: Mapping[str, str], fresh: Sequence[str], has_proc: bool) -> None:
    """Make the image the root of this process; `binds` are paths within and what is seen there.

    `fresh` are folders that are empty and writable within. `has_proc`: with a /proc of this
    process's own PID name space.
    """
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    root = Path("/mnt")
    _mount_empty(root)
    for entry in image.iterdir():
        place = root / entry.name
        if entry.is_symlink():
            place.symlink_to(entry.readlink())
        elif entry.is_dir():
            place.mkdir()
            if entry.name not in ("proc", "dev", "sys", "tmp"):
                _mount(str(entry), str(place), None, _BIND)
        else:
            place.touch()
            _mount(str(entry), str(place), None, _BIND)
    for name in ("proc", "dev", "tmp", "sys"):
        (root / name).mkdir(exist_ok=True)
    _mount("/dev", f"{root}/dev", None, _BIND | _RECURSIVE)
    if has_proc:
        _mount("proc", f"{root}/proc", "proc", 0)
    else:
        _mount("/proc", f"{root}/proc", None, _BIND | _RECURSIVE)
    for folder in ("/tmp", *fresh):
        place = root / folder.lstrip("/")
        _make(place, is_folder=True)
        _mount_empty(place)
        place.chmod(0o1777)
    for within, outside in binds.items():
        place = root / within.lstrip("/")
        _make(place, Path(outside).is_dir())
        _mount(outside, str(place), None, _BIND | _RECURSIVE)
    os.chroot(root)
    os.chdir("/")


def _make(place: Path, is_folder: bool) -> None:
    """Make a folder or an empty file, over a folder of the image that cannot be written to."""
    if place.exists():
        return
    if not place.parent.exists():
        _make(place.parent, is_folder=True)
    if place.parent.stat().st_dev not in _OWN_DEVICES:
        _lay_over(place.parent)
    place.mkdir() if is_folder else place.touch()


def _lay_over(folder: Path) -> None:
    """Mount an empty folder over one, and show in it what was there."""
    below = os.open(folder, os.O_PATH)
    _mount_empty(folder)
    for source in Path(f"/proc/self/fd/{below}").iterdir():
        place = folder / source.name
        if source.is_symlink():
            place.symlink_to(source.readlink())
            continue
        place.mkdir() if source.is_dir() else place.touch()
        _mount(str(source), str(place), None, _BIND)


def forbid_new_privileges() -> None:
    """As docker's `no-new-privileges`."""
    _checked(_LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "prctl")


def look_after(child: int, forwarded: Sequence[int]) -> int:
    """Be the first process of a container: pass signals on, wait, return the child's status."""
    for number in forwarded:
        signal.signal(number, lambda number, _: os.kill(child, number))
    while True:
        pid, status = os.wait()
        if pid == child:
            return status


def run(argv: Sequence[str], environ: Mapping[str, str], directory: str, told: int = 2) -> NoReturn:
    """Become a program of the image, which is looked for in its PATH; says why if it cannot."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # which Python ignores
    folders = [""] if "/" in argv[0] else [f"{folder}/" for folder in environ["PATH"].split(":")]
    why = ""
    for folder in folders:
        try:
            os.chdir(directory)
            os.execve(folder + argv[0], list(argv), dict(environ))
        except OSError as error:
            why = why or str(error.strerror)
    os.write(told, f"FATAL: {argv[0]}: {why}\n".encode())
    os._exit(255)


def _mount_empty(folder: Path) -> None:
    _mount("tmpfs", str(folder), "tmpfs", 0)
    _OWN_DEVICES.add(folder.stat().st_dev)


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    words = [word.encode() if word is not None else None for word in (source, target, kind)]
    _checked(_LIBC.mount(*words, ctypes.c_ulong(flags), None), f"mount {target}")


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
