"""What lease and wall time mean for the payload of one phase."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from htlease_wrapper.lease_thread import LeaseThread
from htlease_wrapper.queued_command import Verdict

#: How often a wait in the main thread looks up although nobody woke it.
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class PhaseWatch:
    """What the lease means for the payload of one phase."""

    lease_thread: LeaseThread
    is_exclusive: bool
    kill_grace_seconds: float
    #: When the payload has had its time and is asked to end; infinite where it has no limit.
    stop_at: float
    monotonic: Callable[[], float]

    def verdict(self) -> Verdict:
        if self.monotonic() >= self.stop_at:
            return Verdict.END
        return self.lease_thread.verdict(self.is_exclusive)

    def seconds_to_change(self) -> float | None:
        lease_seconds = self.lease_thread.seconds_to_change(self.is_exclusive)
        if self.stop_at == math.inf and lease_seconds is None:
            return None
        seconds = max(0.0, self.stop_at - self.monotonic())
        # This clock goes on while the host sleeps, and a timer does not.
        return min(seconds, math.inf if lease_seconds is None else lease_seconds, LOOK_SECONDS)

    def seconds_to_live(self) -> float:
        if not self.is_exclusive:
            return self.kill_grace_seconds
        return max(0.0, min(self.kill_grace_seconds, self.lease_thread.seconds_to_stillness()))

    def woke_up(self) -> None:
        self.lease_thread.renew_now()
