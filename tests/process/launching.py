"""Starts programs the way HTCondor does, each with a start of its own: for comparing with native.

Inside a Debian root or outside of one, with any environment (doubled and odd names included),
limits, signals, streams and user. Needs root for what only root can set.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from htlease.execution.process_start import Entries

WAIT_SECONDS = 60
_CLONE_NEWNS = 0x20000
_MS_RDONLY, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = (
    1,
    8,
    32,
    4096,
    1 << 14,
    1 << 18,
)
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Launch:
    """How a program is started, but for its command line."""

    #: `NAME=VALUE` each, in this order.
    environ: tuple[bytes, ...] = ()
    root: Path | None = None
    directory: str = "/"
    uid: int | None = None
    has_proc: bool = True
    has_dev: bool = True
    #: Directories, as seen from the root, that are mounted anew with flags; see READ_ONLY.
    remounted: Mapping[str, int] = field(default_factory=dict)
    #: Soft and hard, by the numbers of `resource`.
    limits: Mapping[int, int] = field(default_factory=dict)
    ignored: tuple[int, ...] = ()
    blocked: tuple[int, ...] = ()
    closed: tuple[int, ...] = ()
    #: Descriptors that are inherited, open on `/dev/null`.
    inherited: tuple[int, ...] = ()
    umask: int = 0o22
    nice: int = 0
    oom_score_adj: int = 0

    def run(self, *argv: str | bytes) -> Outcome:
        """Run a program to its end."""
        return _run(self, argv)

    def with_environ(self, *entries: str | bytes) -> Launch:
        """Return a start with these variables behind those that there are."""
        return replace(self, environ=(*self.environ, *map(os.fsencode, entries)))


READ_ONLY = _MS_RDONLY
NO_EXEC = _MS_NOEXEC


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    #: As of `subprocess`: negative for a signal.
    status: int
    output: bytes
    messages: str


def _run(launch: Launch, argv: Sequence[str | bytes]) -> Outcome:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if pid == 0:
            _become(launch, argv, output.fileno(), errors.fileno())
        signal.alarm(WAIT_SECONDS)
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        finally:
            signal.alarm(0)
        output.seek(0)
        errors.seek(0)
        return Outcome(status, output.read(), errors.read().decode(errors="replace"))


def _become(launch: Launch, argv: Sequence[str | bytes], output: int, errors: int) -> NoReturn:
    try:
        os.setsid()
        if launch.root is not None:
            _enter(launch, launch.root)
        os.chdir(launch.directory)
        null = os.open("/dev/null" if launch.has_dev else "/etc/passwd", os.O_RDONLY)
        for descriptor, stream in ((0, null), (1, output), (2, errors)):
            os.dup2(stream, descriptor)
        for descriptor in launch.inherited:
            os.dup2(null, descriptor)
        for descriptor in launch.closed:
            os.close(descriptor)
        os.umask(launch.umask)
        os.nice(launch.nice)
        if launch.oom_score_adj:
            Path("/proc/self/oom_score_adj").write_text(str(launch.oom_score_adj))
        if launch.uid is not None:
            os.setgroups([])
            os.setgid(launch.uid)
        for number, limit in launch.limits.items():
            resource.setrlimit(number, (limit, limit))
        if launch.uid is not None:
            os.setuid(launch.uid)
        for signal_number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(signal_number, signal.SIG_DFL)
        for ignored in launch.ignored:
            signal.signal(ignored, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, launch.blocked)
        os.execve(argv[0], list(argv), Entries(launch.environ))
    except BaseException as error:
        os.write(errors, f"cannot be launched: {error!r}".encode())
    os._exit(99)


def _enter(launch: Launch, root: Path) -> None:
    """Enter the root, in a mount namespace of this process."""
    _checked(_LIBC.unshare(_CLONE_NEWNS))
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    if launch.has_proc:
        _mount("proc", f"{root}/proc", "proc", 0)
    if launch.has_dev:
        _mount("/dev", f"{root}/dev", None, _MS_BIND)
    else:
        _mount("none", f"{root}/dev", "tmpfs", 0)
    for folder, flags in launch.remounted.items():
        _mount(f"{root}{folder}", f"{root}{folder}", None, _MS_BIND)
        _mount(None, f"{root}{folder}", None, _MS_BIND | _MS_REMOUNT | flags)
    os.chroot(root)


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    encoded = [part.encode() if part is not None else None for part in (source, target, kind)]
    _checked(_LIBC.mount(*encoded, ctypes.c_ulong(flags), None))


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


__all__ = ["NO_EXEC", "READ_ONLY", "Launch", "Outcome"]
assert sys.platform == "linux"
