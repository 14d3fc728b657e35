"""A job's processes as its starter's hooks can find and stop them, with the job user's rights.

HTCondor marks each child of a daemon, and all below it, with the environment variable
`_CONDOR_ANCESTOR_<pid of the daemon>=<pid of the child>:...`; so the job is told from the hooks of
the same starter, and is found where its processes have left their parents. Source: measured on
23.9.6 and 25.14.1. What docker runs is no child of HTCondor's and has no such mark, but the job's
environment, scratch directory and all.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_POLL_SECONDS = 0.1
_KILL_SECONDS = 2.0
_MARK = "_CONDOR_ANCESTOR_"


def job_mark(environ: Mapping[str, str], hook_pid: int, job_pid: int) -> bytes | None:
    """Return how the environment of a job's processes names them, read off a hook's own mark."""
    for name, value in environ.items():
        if name.startswith(_MARK) and value.startswith(f"{hook_pid}:"):
            return f"{name}={job_pid}:".encode()
    return None


def container_mark(sandbox: Path) -> bytes:
    """Return how the environment of what docker runs for a job names it."""
    return f"_CONDOR_SCRATCH_DIR={sandbox}\0".encode()


def job_processes(job_pid: int, mark: bytes | None) -> list[int]:
    """Return the living processes of a job.

    A container's are told by their mark alone: hooks have the same scratch directory.
    """
    children: dict[int, list[int]] = {}
    found: set[int] = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        try:
            stat = Path(entry.path, "stat").read_text(errors="replace")
            state, parent = stat[stat.rindex(")") + 2 :].split()[:2]
            if state in "ZX":
                continue
            children.setdefault(int(parent), []).append(pid)
            if pid == job_pid or (mark and _is_marked(Path(entry.path, "environ"), mark)):
                found.add(pid)
        except (OSError, ValueError):
            continue  # it has just ended, or is another user's
    unseen = list(found)
    while unseen:
        below = [pid for pid in children.get(unseen.pop(), []) if pid not in found]
        found.update(below)
        unseen += below
    return sorted(found - {os.getpid()})


def _is_marked(environ: Path, mark: bytes) -> bool:
    text = environ.read_bytes()
    return mark in text and (mark.startswith(_MARK.encode()) or _MARK.encode() not in text)


def stop(job_pid: int, mark: bytes | None, grace_seconds: float) -> bool:
    """End a job: SIGTERM, a grace, SIGKILL; tell whether nothing of it is left.

    Tells at once: a starter that finds its job dead leaves within 20 ms, and HTCondor then kills
    whatever the starter began, its hooks too. Source: measured on 25.14.1.
    """
    for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, _KILL_SECONDS)):
        until = time.monotonic() + seconds
        signalled: set[int] = set()
        while True:
            left = job_processes(job_pid, mark)
            if not left:
                return True
            for pid in left:
                if pid not in signalled:  # SIGTERM once; what was forked since gets its own
                    _send(pid, number)
                    _send(pid, signal.SIGCONT)
                    signalled.add(pid)
            if time.monotonic() >= until:
                break
            _wait_for_an_end(left)
    return False


def _wait_for_an_end(pids: Sequence[int]) -> None:
    """Wait until one of some processes has ended, but not long: others may have been forked."""
    descriptors: list[int] = []
    try:
        poll = select.poll()
        for pid in pids:
            descriptors.append(os.pidfd_open(pid))
            poll.register(descriptors[-1], select.POLLIN)
        poll.poll(_POLL_SECONDS * 1000)
    except ProcessLookupError:
        pass
    except (AttributeError, OSError):
        time.sleep(_POLL_SECONDS)  # a kernel before 5.3, or too many processes
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # gone, or it has changed its user and HTCondor will see to it
