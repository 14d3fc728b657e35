"""Plans: the phases of a subjob, what a restart does to each, and which are left to run.

`PhaseSpec` and `Plan` travel on the wire and are stored. The commands that a wrapper runs for
each phase stay in the wrapper (`htlease.plan_file`): argv may hold secrets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from htlease.attempt import check_name
from htlease.errors import InvalidField

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


def seconds_from(value: object) -> float | None:
    """Return what somebody wrote as a number of seconds, or None if it is none or negative."""
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def check_ttl(ttl_seconds: float) -> float:
    """Return a usable lease duration; raises InvalidField."""
    if isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, (int, float)):
        raise InvalidField("ttl_seconds", f"{ttl_seconds!r} is not a number of seconds")
    if not TTL_MIN_SECONDS <= ttl_seconds <= TTL_MAX_SECONDS:
        raise InvalidField(
            "ttl_seconds",
            f"{ttl_seconds:g} is outside {TTL_MIN_SECONDS:g} to {TTL_MAX_SECONDS:g} seconds",
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
    #: `PROFILE` or `PROFILE:FLOW` of `htlease.profiles` when the order is not a straight line.
    profile: str | None = None

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

    def phase(self, name: str) -> PhaseSpec | None:
        """Return the phase of that name, if the plan has it."""
        return next((phase for phase in self.phases if phase.name == name), None)

    @classmethod
    def single(cls, name: str = "run", restart: str = "redo") -> Plan:
        """Return the plan of a job that named no phases."""
        return cls((PhaseSpec(name, restart),))


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
