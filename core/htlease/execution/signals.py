"""Signals of the wrapper: all blocked, and taken one at a time by the main thread.

Nothing is handled asynchronously, so no signal is lost between two statements and the payload
inherits dispositions and mask as they were when the wrapper was started.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable

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
#: A timer of no time at all is none.
_SHORTEST_SECONDS = 1e-6


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
        #: When a timer rings that was set before this process was started (`alarm`, then `exec`):
        #: it is the payload's, but there is one timer only, and `wait` needs it.
        first, self._alarm_every = signal.getitimer(signal.ITIMER_REAL)
        self._alarm_at = time.monotonic() + first if first else math.inf
        #: Signals by which HTCondor asks a job to end.
        self.evict_on = frozenset(evict_on)
        #: Work to be done between signals, where there is no thread for it; it returns in how many
        #: seconds it wants to be called again.
        self.meanwhile: Callable[[], float] | None = None
        #: The first such signal that came.
        self.evicted_by: int | None = None

    def wait(self, seconds: float | None) -> int | None:
        """Return the next signal, or None after that many seconds (None: no limit).

        It may return None sooner, so whoever waits looks at a clock.
        """
        if self.meanwhile is not None:
            pause_seconds = self.meanwhile()
            seconds = pause_seconds if seconds is None else min(seconds, pause_seconds)
        info = self._taken(math.inf if seconds is None else seconds)
        if info is None:
            return None
        if info.si_signo == signal.SIGALRM and info.si_code > 0:  # by the kernel: a timer
            if time.monotonic() < self._alarm_at:
                return None
            self._alarm_at = self._alarm_at + self._alarm_every if self._alarm_every else math.inf
        if info.si_signo == signal.SIGPIPE and info.si_pid == os.getpid():
            return signal.SIGCHLD  # our own write to a closed pipe; nobody sent it
        if info.si_signo in self.evict_on and self.evicted_by is None:
            self.evicted_by = info.si_signo
        return int(info.si_signo)

    def _taken(self, seconds: float) -> signal.struct_siginfo | None:
        """Take the next signal; SIGALRM by the kernel when the time is over.

        `sigtimedwait` is not asked to wait: where SIGSTOP and SIGCONT span its time-out, CPython
        (3.9 to 3.14) returns a siginfo that nobody has filled in.
        """
        info = signal.sigtimedwait(self._all, 0)
        if info is not None or seconds <= 0:
            return info
        seconds = min(seconds, self._alarm_at - time.monotonic())
        if seconds == math.inf:
            return signal.sigwaitinfo(self._all)
        signal.setitimer(signal.ITIMER_REAL, max(seconds, _SHORTEST_SECONDS))
        try:
            return signal.sigwaitinfo(self._all)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def pause(self, seconds: float) -> None:
        """Sleep; raises Interrupted when a signal comes that would end a payload."""
        number = self.wait(seconds)
        if number is not None and number not in _HARMLESS:
            raise Interrupted(number)

    def give_back(self) -> None:
        """Let this process have its signals as before; those that came meanwhile take effect."""
        if self._alarm_at < math.inf:
            seconds = max(self._alarm_at - time.monotonic(), _SHORTEST_SECONDS)
            signal.setitimer(signal.ITIMER_REAL, seconds, self._alarm_every)
        signal.signal(signal.SIGCHLD, self._on_child_before)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask_before)

    def wake(self) -> None:
        """Make `wait` return in the main thread; callable from any thread."""
        assert self._main_thread is not None
        signal.pthread_kill(self._main_thread, signal.SIGCHLD)
