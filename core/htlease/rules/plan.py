"""Plans: the phases of a subjob, what a restart does to each, and which are left to run.

`PhaseSpec` and `Plan` travel on the wire and are stored. The commands that a wrapper runs for
each phase stay in the wrapper (`htlease.config.plan_file`): argv may hold secrets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from htlease.errors import InvalidField
from htlease.rules.attempt import check_name
from htlease.rules.reasons import WALL_TIME

TTL_DEFAULT_SECONDS = 120.0
TTL_MIN_SECONDS = 1.0
TTL_MAX_SECONDS = 7 * 86400.0
PHASES_MAX = 200

#: redo: local to a sandbox, every attempt does it again. resume: re-entered with the details that
#: the last attempt saved. once: skipped when an earlier attempt completed it.
RESTARTS = ("redo", "resume", "once")
#: wait: a newer attempt waits for the end of a live lease, unless there is proof. immediate: it
#: is granted at once and the older attempt is fenced.
TAKEOVERS = ("wait", "immediate")
#: What a start that ran into a limit on its time comes to. next-attempt: the job runs again and
#: goes on. hold: it stays held for a person. fail: the subjob is closed as failed.
ON_WALL_TIME = ("next-attempt", "hold", "fail")


def seconds_from(value: object) -> float | None:
    """Return what somebody wrote as a number of seconds, or None if it is none or negative."""
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def is_wall_time(reason: str | None) -> bool:
    """Tell whether the reason of an end says that a limit on run time was reached."""
    return (reason or "").partition(":")[0] == WALL_TIME


def check_ttl(ttl_seconds: float) -> float:
    """Return a usable lease duration; raises InvalidField."""
    if isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, (int, float)):
        raise InvalidField("ttl_seconds", f"{ttl_seconds!r} is not a number of seconds")
    if not TTL_MIN_SECONDS <= ttl_seconds <= TTL_MAX_SECONDS:
        raise InvalidField(
            "ttl_seconds",
            f"{ttl_seconds:.12g} is outside {TTL_MIN_SECONDS:g} to {TTL_MAX_SECONDS:g} seconds",
        )
    return float(ttl_seconds)


@dataclass(frozen=True)
class PhaseSpec:
    """One step of a subjob."""

    name: str
    #: One of RESTARTS.
    restart: str = "redo"
    #: The payload of an exclusive phase stands still before its lease can have ended.
    exclusive: bool = False
    #: Flags looked at in this order before the phase starts.
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name("phase.name", self.name)
        if self.restart not in RESTARTS:
            raise InvalidField(
                f"phase {self.name}: restart",
                f"{self.restart!r} is not one of {', '.join(RESTARTS)}",
            )
        for flag in self.needs:
            check_name(f"phase {self.name}: needs", flag)


@dataclass(frozen=True)
class Plan:
    """The phases of a subjob in order, or the name of a state machine (profile) and its flow."""

    phases: tuple[PhaseSpec, ...]
    #: One of TAKEOVERS.
    takeover: str = "wait"
    #: `PROFILE` or `PROFILE:FLOW` of `profiles` when the order is not a straight line.
    profile: str | None = None
    #: One of ON_WALL_TIME; None: as HTCondor has it, for limits of its own, and else next-attempt.
    on_wall_time: str | None = None

    def __post_init__(self) -> None:
        if not self.phases:
            raise InvalidField("plan.phases", "is empty; a plan needs at least one phase")
        if len(self.phases) > PHASES_MAX:
            raise InvalidField("plan.phases", f"has {len(self.phases)}; {PHASES_MAX} is the limit")
        names = [phase.name for phase in self.phases]
        for name in names:
            if names.count(name) > 1:
                raise InvalidField("plan.phases", f"has two phases named {name!r}")
        if self.takeover not in TAKEOVERS:
            raise InvalidField(
                "plan.takeover", f"{self.takeover!r} is not one of {', '.join(TAKEOVERS)}"
            )
        if self.on_wall_time not in (None, *ON_WALL_TIME):
            raise InvalidField(
                "plan.on_wall_time",
                f"{self.on_wall_time!r} is not one of {', '.join(ON_WALL_TIME)}",
            )

    def phase(self, name: str) -> PhaseSpec | None:
        """Return the phase of that name, if the plan has it."""
        return next((phase for phase in self.phases if phase.name == name), None)

    @classmethod
    def single(cls, name: str = "run", restart: str = "resume") -> Plan:
        """Return the plan of a job that named no phases; its next attempt gets what it saved."""
        return cls((PhaseSpec(name, restart),))


@dataclass(frozen=True)
class PlanFile:
    """A plan and the commands that stay on this side of the wire: argv may hold secrets."""

    plan: Plan
    #: Phase -> argv; empty when the payload manages its phases itself.
    commands: Mapping[str, tuple[str, ...]]
    ttl_seconds: float | None
    #: How long one start of the job may run; None: as long as HTCondor lets it.
    wall_time_seconds: float | None = None
    #: Phase -> how long one run of it may take.
    phase_wall_times: Mapping[str, float] = field(default_factory=dict)

    @property
    def after_wall_time(self) -> str | None:
        """What follows a limit on run time, one of ON_WALL_TIME; None: nothing is said of any."""
        has_limit = self.wall_time_seconds is not None or bool(self.phase_wall_times)
        return self.plan.on_wall_time or ("next-attempt" if has_limit else None)


class CompletionRecord(Protocol):
    """What `phases_left` needs to know of a phase's record."""

    @property
    def completed_fence(self) -> int | None:
        """The fence under which the phase was completed last, if it was."""


def is_done(spec: PhaseSpec, record: CompletionRecord | None, fence: int | None) -> bool:
    """Tell whether the holder of `fence` need not run a phase for the phase's own sake.

    What the same holder completed is still in its sandbox; of earlier attempts' work only a
    `once` phase lasts.
    """
    if record is None or record.completed_fence is None:
        return False
    return record.completed_fence == fence or spec.restart == "once"


def phases_left(
    plan: Plan, records: Mapping[str, CompletionRecord], fence: int | None = None
) -> tuple[str, ...]:
    """Return the phases that the holder of `fence` still has to run, in order.

    Decided from the last to the first: a completed `once` phase never runs again; any other runs
    if it is the last, or not complete, or if a later one has to run, since what it left was local
    to a sandbox that is gone. With no fence: what a new attempt would run.
    """
    left: list[str] = []
    for index in range(len(plan.phases) - 1, -1, -1):
        spec = plan.phases[index]
        record = records.get(spec.name)
        if is_done(spec, record, fence):
            continue
        completed = record is not None and record.completed_fence is not None
        is_last = index == len(plan.phases) - 1
        if is_last or not completed or left:
            left.append(spec.name)
    return tuple(reversed(left))
