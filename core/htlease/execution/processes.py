"""Processes below the wrapper: finding them, stopping them, leaving none behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from htlease.execution.signals import Signals

_PR_SET_CHILD_SUBREAPER = 36
#: What the payload leaves running gets this long between SIGTERM and SIGKILL.
LEFTOVER_GRACE_SECONDS = 2.0
#: A process that outlives SIGKILL hangs in the kernel; nobody can wait for it.
_KILLED_GRACE_SECONDS = 2.0
_POLL_SECONDS = 0.05


def adopt_orphans() -> bool:
    """Become the parent of orphaned descendants, so that they are found and reaped.

    Returns False where the system cannot do it; leftovers are then found by process group only.
    """
    try:
        import ctypes

        prctl = ctypes.CDLL(None, use_errno=True).prctl
        return bool(prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def reap() -> Iterator[tuple[int, int]]:
    """Collect ended or stopped children without waiting, as (pid, wait status)."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def signal_all(group: int, number: int) -> bool:
    """Signal a process group and every descendant outside it; tell whether there was any."""
    found = signal_group(group, number)
    for pid in descendants():
        try:
            if os.getpgid(pid) != group:
                os.kill(pid, number)
                found = True
        except (ProcessLookupError, PermissionError):
            continue  # gone, or it changed its user and HTCondor will see to it
    return found


def signal_group(group: int, number: int) -> bool:
    """Signal a process group; tell whether there was one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def descendants() -> list[int]:
    """Return the processes below this one, from one pass over /proc; [] without /proc."""
    children: dict[int, list[int]] = {}
    try:
        entries = [entry.name for entry in os.scandir("/proc")]
    except OSError:
        return []
    for entry in entries:
        if not entry.isdigit():
            continue
        fields = _stat_fields(int(entry))
        if fields and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    parents = [os.getpid()]
    while parents:
        below = children.get(parents.pop(), [])
        found += below
        parents += below
    return found


def ancestors() -> list[int]:
    """Return the processes above this one, nearest first."""
    found: list[int] = []
    parent = os.getppid()
    while parent > 0:
        found.append(parent)
        fields = _stat_fields(parent)
        parent = int(fields[1]) if fields else 0
    return found


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if there is no such process.

    With the pid this names a process even after the pid is used again.
    """
    fields = _stat_fields(pid)
    return None if not fields or fields[0] == "Z" else int(fields[19])


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command name: state, ppid, pgrp, ..."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def clear_out(group: int, signals: Signals) -> None:
    """End what is left of the payload: SIGTERM, a short grace, SIGKILL; no zombie stays."""
    for number, grace_seconds in (
        (signal.SIGTERM, LEFTOVER_GRACE_SECONDS),
        (signal.SIGKILL, _KILLED_GRACE_SECONDS),
    ):
        if not _anything_left(group):
            return
        signal_all(group, number)
        signal_all(group, signal.SIGCONT)  # a stopped process hears nothing but SIGKILL
        until = time.monotonic() + grace_seconds
        while _anything_left(group) and time.monotonic() < until:
            signals.wait(_POLL_SECONDS)


def _anything_left(group: int) -> bool:
    """Tell whether the group or an adopted orphan is alive; reaps what has ended."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return signal_group(group, 0)
    return True
