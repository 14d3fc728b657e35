"""Signals of the wrapper: all blocked, and taken one at a time by the main thread.

Nothing is handled asynchronously, so no signal is lost between two statements and the payload
inherits dispositions and mask as they were when the wrapper was started.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable

#: Signals that by default do nothing, or only stop, so that they end no payload.
_HARMLESS = frozenset(
    {
        signal.SIGCHLD,
        signal.SIGCONT,
        signal.SIGURG,
        signal.SIGWINCH,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
    }
)
#: Python ignores these from its start on, which an exec would pass on to the payload.
IGNORED_BY_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})


class Interrupted(Exception):
    """A signal that ends a process came while there was no payload to pass it to."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """The wrapper's inbox of signals."""

    def __init__(self, evict_on: Iterable[int] = (signal.SIGTERM,)) -> None:
        self._all = signal.valid_signals()
        self.mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, self._all)
        # An ignored SIGCHLD, inherited from a careless parent, would lose exit statuses.
        self._on_child_before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._main_thread = threading.main_thread().ident
        #: Signals by which HTCondor asks a job to end.
        self.evict_on = frozenset(evict_on)
        #: The first such signal that came.
        self.evicted_by: int | None = None

    def wait(self, seconds: float | None) -> int | None:
        """Return the next signal, or None after that many seconds (None: no limit)."""
        if seconds is None:
            info = signal.sigwaitinfo(self._all)
        else:
            taken = signal.sigtimedwait(self._all, max(0.0, seconds))
            if taken is None:
                return None
            info = taken
        if info.si_signo == signal.SIGPIPE and info.si_pid == os.getpid():
            return signal.SIGCHLD  # our own write to a closed pipe; nobody sent it
        if info.si_signo in self.evict_on and self.evicted_by is None:
            self.evicted_by = info.si_signo
        return int(info.si_signo)

    def pause(self, seconds: float) -> None:
        """Sleep; raises Interrupted when a signal comes that would end a payload."""
        number = self.wait(seconds)
        if number is not None and number not in _HARMLESS:
            raise Interrupted(number)

    def give_back(self) -> None:
        """Let this process have its signals as before; those that came meanwhile take effect."""
        signal.signal(signal.SIGCHLD, self._on_child_before)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask_before)

    def poke(self) -> None:
        """Make `wait` return in the main thread; callable from any thread."""
        assert self._main_thread is not None
        signal.pthread_kill(self._main_thread, signal.SIGCHLD)
