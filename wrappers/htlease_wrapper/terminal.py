"""Job control on a terminal: the payload is in the foreground while it runs."""

from __future__ import annotations

import os
import signal


class Terminal:
    """The controlling terminal on standard input, if the wrapper is in its foreground."""

    def __init__(self) -> None:
        self._is_ours = False
        try:
            self._is_ours = os.tcgetpgrp(0) == os.getpgrp()
        except OSError:
            pass  # no terminal, as in nearly every job

    def hand_to(self, group: int) -> None:
        """Put a process group into the foreground."""
        if self._is_ours and self._set_foreground(group):
            # It may have asked for input before this and been stopped for it.
            _signal_group(group, signal.SIGCONT)

    def take_back(self) -> None:
        """Put the wrapper into the foreground again."""
        if self._is_ours:
            self._set_foreground(os.getpgrp())

    def stop_with(self, group: int) -> None:
        """Stop as the payload was stopped (Ctrl-Z), and go on with it (`fg`)."""
        if not self._is_ours:
            return
        self.take_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.hand_to(group)

    def _set_foreground(self, group: int) -> bool:
        # All signals are blocked, SIGTTOU too, so that this does not stop a background wrapper.
        try:
            os.tcsetpgrp(0, group)
        except OSError:
            return False
        return True


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass
