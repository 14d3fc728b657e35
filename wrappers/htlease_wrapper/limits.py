"""Limits of the system that leave no room for a wrapper: the payload must not fail for that."""

from __future__ import annotations

import errno
import os

from htlease_wrapper.exit_status import TRY_LATER, NoLease

#: So many processes the payload finds room for beside the wrapper and its thread, or it has none.
_SPARE_PROCESSES = 8
#: Counting processes costs some milliseconds, which wide limits are not worth.
_TIGHT_PROCESSES = 1000
_SHORT = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


class NoRoom(NoLease):
    """A wrapper would take what the payload needs, or cannot start anything itself."""

    def __init__(self, why: str) -> None:
        super().__init__(TRY_LATER, f"{why}; try again with wider limits", why)


class NoProcess(Exception):
    """The system has no room for the process of a payload; nothing of it has run."""


def check_room() -> None:
    """Raise NoRoom where a wrapper would take processes that the payload may need."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if os.geteuid() == 0 or limit == resource.RLIM_INFINITY or limit > _TIGHT_PROCESSES:
        return
    used = _threads_of(os.getuid())
    if limit < used + 1 + _SPARE_PROCESSES:
        raise NoRoom(
            f"the limit of {limit} processes, of which {used} are in use, leaves a wrapper no room"
        )


def is_shortage(error: BaseException | None) -> bool:
    """Tell whether an error says that the system has no more of something."""
    if isinstance(error, OSError):
        return error.errno in _SHORT
    is_thread = isinstance(error, RuntimeError) and "start new thread" in str(error)
    return isinstance(error, MemoryError) or is_thread


def _threads_of(uid: int) -> int:
    """Count what a user's limit of processes counts; 1 without /proc."""
    count = 0
    try:
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                count += len(os.listdir(f"/proc/{entry.name}/task"))  # noqa: PTH208
    except OSError:
        pass  # one has just ended, or there is no /proc
    return max(count, 1)
