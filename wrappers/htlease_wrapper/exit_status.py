"""How the wrapper ends: its own exit codes, and the payload's end repeated unchanged."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from htlease.errors import HTLeaseError, ServerUnavailable

#: Own exit codes, from sysexits.h: EX_TEMPFAIL, EX_PROTOCOL, EX_CONFIG.
TRY_LATER = 75
SUPERSEDED = 76
BAD_CONFIG = 78
#: Not of sysexits.h: the job has had its wall time, and its plan says what follows.
OUT_OF_TIME = 79


class WrapperExit(Exception):
    """The wrapper ends with an exit code of its own; the text says why and what to do next."""

    def __init__(self, exit_code: int, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class NoLease(WrapperExit):
    """The payload was not started since no lease can be had, through no fault of its own."""

    def __init__(self, exit_code: int, text: str, why: str, is_away: bool = False) -> None:
        super().__init__(exit_code, text)
        self.why = why
        #: The server has said nothing, so that no attempt is known to be in the way.
        self.is_away = is_away


def no_lease_for(error: Exception) -> NoLease:
    """Return what an error comes to that happens before the payload is started."""
    text = str(error) if isinstance(error, HTLeaseError) else internal_error(error)
    is_away = isinstance(error, ServerUnavailable)
    return NoLease(TRY_LATER if is_away else BAD_CONFIG, text, text)


def internal_error(error: Exception) -> str:
    """Return one line about an error of ours, with the place where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    at = f" in {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace else ""
    return f"internal error{at}, please report it: {error!r}"


@dataclass(frozen=True)
class ExitStatus:
    """How a process ended: by an exit code or by a signal."""

    code: int | None = None
    signal: int | None = None

    @classmethod
    def of_wait_status(cls, status: int) -> ExitStatus:
        """Read what waitpid says of a process that is over."""
        if os.WIFSIGNALED(status):
            return cls(signal=os.WTERMSIG(status))
        return cls(code=os.WEXITSTATUS(status))

    def __str__(self) -> str:
        if self.signal is None:
            return f"exit code {self.code}"
        return signal_name(self.signal)


def signal_name(number: int) -> str:
    """Return `SIGTERM` for 15; a real-time signal is `signal 40`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def end_as(ended: ExitStatus) -> int:
    """Die by the signal that the payload died by, or return its exit code.

    HTCondor reads `ExitBySignal` from the wrapper, so the signal is repeated with its default
    action, without a second core file.
    """
    if ended.signal is None:
        assert ended.code is not None
        return ended.code
    import resource  # needed only here, and the start should be quick

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if ended.signal not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(ended.signal, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [ended.signal])
    os.kill(os.getpid(), ended.signal)
    return 128 + ended.signal  # the first process of a container survives its own signals
