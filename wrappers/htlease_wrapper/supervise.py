"""Supervision: spawn one child, forward signals, reap, return its status unchanged.

The payload runs in a process group of its own, with the signal dispositions and mask that the
wrapper was started with; stdin, stdout and stderr are the wrapper's. A forwarded signal goes to
the payload's top process only, as HTCondor itself does it (`OsProc`, `Send_Signal(JobPid)`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from htlease.execution.processes import clear_out, reap, signal_all
from htlease.execution.signals import Signals
from htlease_wrapper.exit_status import ExitStatus
from htlease_wrapper.queued_command import Verdict
from htlease_wrapper.spawn import spawn
from htlease_wrapper.terminal import Terminal

#: Processes forked while others are being stopped are found in a second pass.
_FREEZE_PASSES = 3


class Watch(Protocol):
    """What a supervision asks while a payload runs."""

    def verdict(self) -> Verdict:
        """Say what the payload has to do now."""

    def seconds_to_change(self) -> float | None:
        """Return when to ask again, unless woken earlier; None: no need."""

    def seconds_to_live(self) -> float:
        """Return how long a payload that has to end may take for it at most."""

    def woke_up(self) -> None:
        """Hear that the wrapper was stopped and goes on."""


def supervise(
    argv: Sequence[str],
    environ: Mapping[str, str],
    signals: Signals,
    watch: Watch,
    monotonic: Callable[[], float],
    on_end: Callable[[ExitStatus], None] = lambda ended: None,
) -> ExitStatus:
    """Run a command to its end and leave nothing of it behind; raises CannotStart.

    `on_end` hears of the end before what the command left running is ended too.
    """
    terminal = Terminal()
    pid = spawn(argv, environ, signals.mask_before)
    terminal.hand_to(pid)
    payload = _Payload(pid, signals, watch, terminal, monotonic)
    ended = payload.run()
    terminal.take_back()
    on_end(ended)
    clear_out(pid, signals)
    return ended


class _Payload:
    """A running command: obeys the watch, passes signals on, notices its end."""

    def __init__(
        self,
        pid: int,
        signals: Signals,
        watch: Watch,
        terminal: Terminal,
        monotonic: Callable[[], float],
    ) -> None:
        self._pid = pid
        self._signals = signals
        self._watch = watch
        self._terminal = terminal
        self._monotonic = monotonic
        self._is_frozen = False
        self._kill_at: float | None = None

    def run(self) -> ExitStatus:
        while True:
            for pid, status in reap():
                if pid != self._pid:
                    continue
                if not os.WIFSTOPPED(status):
                    return ExitStatus.of_wait_status(status)
                if not self._is_frozen:
                    self._terminal.stop_with(self._pid)
                    self._watch.woke_up()
            number = self._signals.wait(self._obey())
            if number is not None and number != signal.SIGCHLD:
                self._pass_on(number)

    def _obey(self) -> float | None:
        """Do what the watch says; return for how many seconds to wait for signals."""
        verdict = self._watch.verdict()
        if verdict is Verdict.END:
            return self._end()
        if verdict is Verdict.STAND_STILL and not self._is_frozen:
            self._is_frozen = True
            for _ in range(_FREEZE_PASSES):
                signal_all(self._pid, signal.SIGSTOP)
        elif verdict is Verdict.GO_ON and self._is_frozen:
            self._is_frozen = False
            signal_all(self._pid, signal.SIGCONT)
        return self._watch.seconds_to_change()

    def _end(self) -> float | None:
        now = self._monotonic()
        if self._kill_at is None:
            # One that stands still must not run again, not even to say goodbye.
            first = signal.SIGKILL if self._is_frozen else signal.SIGTERM
            signal_all(self._pid, first)
            signal_all(self._pid, signal.SIGCONT)
            self._kill_at = now + self._watch.seconds_to_live()
        elif now >= self._kill_at:
            signal_all(self._pid, signal.SIGKILL)
            return None
        return self._kill_at - now

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGCONT:
            self._watch.woke_up()
            if self._is_frozen:
                return
        if self._is_frozen and number in self._signals.evict_on:
            number = signal.SIGKILL  # it cannot hear anything else, and must not run again
        try:
            os.kill(self._pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # ended, its status is about to be read; or it became another user
