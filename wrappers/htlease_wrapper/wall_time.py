"""How long a payload may run: the limits of job and phase, and when it is asked to end; pure."""

from __future__ import annotations

import math
from typing import NamedTuple

from htlease.rules.reasons import WALL_TIME
from htlease_wrapper.settings import Settings

#: What follows, by the plan's `on_wall_time`; HTCondor does it if the submit file lets it.
AFTER = {
    "next-attempt": "the next attempt goes on",
    "hold": "the job is to be held",
    "fail": "the subjob has failed",
}


class Limit(NamedTuple):
    """The limit that comes first."""

    #: When the payload is asked to end, on the wrapper's clock; it is killed a grace later.
    stop_at: float = math.inf
    #: Whose limit it is and how long, for the history.
    reason: str = ""


NO_LIMIT = Limit()


def limit_of(settings: Settings, phase: str | None, started_at: float, now: float) -> Limit:
    """Return the limit of a payload that starts now in a wrapper that started at `started_at`."""
    limits = [NO_LIMIT]
    if settings.wall_time_seconds is not None:
        limits.append(_limit(settings, "the job", started_at, settings.wall_time_seconds))
    phase_seconds = settings.phase_wall_times.get(phase or "")
    if phase_seconds is not None:
        limits.append(_limit(settings, f"phase {phase}", now, phase_seconds))
    return min(limits)


def _limit(settings: Settings, what: str, since: float, seconds: float) -> Limit:
    reason = f"{WALL_TIME}: {what} has had its {seconds:.12g} s"
    return Limit(since + seconds - settings.kill_grace_seconds, reason)
