"""A limit on a hook's own time; HTCondor waits for PREPARE hooks for ever.

The work runs in a thread, because no signal can end a name look-up that hangs; the hook exits
without waiting for it (`__main__` leaves by `os._exit`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Work(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self.result: list[T] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.result.append(self._work())
        except Exception as error:
            self.error = error


def within(seconds: float, work: Callable[[], T]) -> T:
    """Return what the work returns, or raise what it raises; raises TimeoutError at the limit."""
    done = _Work(work)
    thread = threading.Thread(target=done.run, daemon=True)
    thread.start()
    thread.join(seconds)
    if done.error is not None:
        raise done.error
    if not done.result:
        raise TimeoutError(f"nothing came of it in {seconds:g} s")
    return done.result[0]
