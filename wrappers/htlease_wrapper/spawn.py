"""Starts the payload as HTCondor would have started it, but with our variables added."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from htlease.execution.process_start import at_start
from htlease_wrapper.exec_payload import absolute
from htlease_wrapper.limits import NoProcess, is_shortage

NOT_FOUND = 127
NOT_EXECUTABLE = 126


class CannotStart(Exception):
    """The payload cannot be started; the text says why."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def spawn(argv: Sequence[str], environ: Mapping[str, str], mask: Collection[int]) -> int:
    """Start the payload, in a process group of its own, and return its pid; raises CannotStart.

    Raises NoProcess where the system has no room for it.
    """
    program = _find(argv[0], environ.get("PATH", os.defpath))
    argv = absolute(argv)
    start = at_start()
    try:
        return os.posix_spawn(
            argv[0] if "/" in argv[0] else program,
            argv,
            start.with_changes(environ),
            setpgroup=0,
            setsigmask=mask,
            setsigdef=start.to_reset,
        )
    except OSError as error:
        if is_shortage(error):
            raise NoProcess(f"{program}: {error.strerror}") from None
        raise CannotStart(NOT_EXECUTABLE, _why_not(program, error)) from None


def _find(name: str, path: str) -> str:
    """Return the program that a name stands for, as a shell would find it."""
    if "/" in name:
        if not os.path.lexists(name):
            raise CannotStart(
                NOT_FOUND, f"{name} does not exist in {Path.cwd()}; was it transferred?"
            )
        return name
    found = None
    for folder in path.split(os.pathsep):
        candidate = os.path.join(folder or ".", name)  # noqa: PTH118  (a Path loses the `./`)
        if os.path.isfile(candidate):  # noqa: PTH113
            if os.access(candidate, os.X_OK):
                return candidate
            found = found or candidate
    if found:
        raise CannotStart(NOT_EXECUTABLE, f"{found} is not executable; chmod +x helps")
    hint = f"; ./{name} does" if Path(name).exists() else ""
    raise CannotStart(NOT_FOUND, f"{name} does not exist in PATH{hint}")


def _why_not(program: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"{program} cannot be run: the interpreter in its first line does not exist here"
    if error.errno == errno.ENOEXEC:
        return f"{program} cannot be run: no program and no script with a #! line"
    if error.errno == errno.EACCES and not os.access(program, os.X_OK):
        return f"{program} is not executable; chmod +x helps"
    return f"{program} cannot be run: {error.strerror}"
