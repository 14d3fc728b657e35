"""Named state machines, as data.

A profile says which states a subjob may pass through when its order is not a straight line of
phases. `simple` and `staged` are straight lines; `cts` is the state machine of KBase's CDM Task
Service with all its flows. Pictures (`htlease.config.diagram`) come from these same tables.
"""

from __future__ import annotations

import functools
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass

from htlease.errors import InvalidField
from htlease.rules.plan import PhaseSpec, Plan


@dataclass(frozen=True)
class Flow:
    """One state machine: states are entered as phases, along the transitions."""

    name: str
    initial: str
    states: tuple[str, ...]
    transitions: frozenset[tuple[str, str]]
    #: State -> what entering it makes of the subjob: complete, failed or cancelled.
    terminal: Mapping[str, str]

    def allows(self, current: str | None, target: str) -> bool:
        """Tell whether `target` may follow `current` (None: nothing entered yet)."""
        before = self.initial if current is None else current
        return target == before or (before, target) in self.transitions

    def plan(self, profile: str, takeover: str = "wait") -> Plan:
        """Return the plan of a subjob that follows this flow; every state may be re-entered."""
        phases = tuple(PhaseSpec(state, "resume") for state in self.states)
        return Plan(phases, takeover, f"{profile}:{self.name}")


@dataclass(frozen=True)
class Profile:
    """A family of flows under one name; the first is the default."""

    name: str
    flows: tuple[Flow, ...]

    def flow(self, name: str | None) -> Flow:
        """Return a flow by name; raises InvalidField naming the flows that there are."""
        if name is None:
            return self.flows[0]
        for flow in self.flows:
            if flow.name == name:
                return flow
        known = ", ".join(flow.name for flow in self.flows)
        raise InvalidField("profile", f"{self.name} has no flow {name!r}; it has {known}")


@functools.cache
def load_profile(name: str) -> Profile:
    """Return a profile by name; raises InvalidField naming the profiles that there are."""
    if name not in PROFILE_NAMES:
        raise InvalidField("profile", f"no profile {name!r}; there are {', '.join(PROFILE_NAMES)}")
    data = pkgutil.get_data("htlease", f"rules/state_machines/{name}.json")
    assert data is not None, f"rules/state_machines/{name}.json is missing from the package"
    document = json.loads(data)
    return Profile(
        name,
        tuple(
            Flow(
                flow_name,
                flow["initial"],
                tuple(flow["states"]),
                frozenset((before, after) for before, after in flow["transitions"]),
                flow["terminal"],
            )
            for flow_name, flow in document["flows"].items()
        ),
    )


PROFILE_NAMES = ("simple", "staged", "cts")


def flow_of(plan: Plan) -> Flow | None:
    """Return the flow that a plan follows, or None for a straight line of phases."""
    return None if plan.profile is None else find_flow(plan.profile)


def find_flow(reference: str) -> Flow:
    """Return the flow that `PROFILE` or `PROFILE:FLOW` names; raises InvalidField."""
    name, _, flow_name = reference.partition(":")
    return load_profile(name).flow(flow_name or None)


def plan_of(reference: str, takeover: str = "wait") -> Plan:
    """Return the plan for `PROFILE` or `PROFILE:FLOW`; raises InvalidField."""
    return find_flow(reference).plan(reference.partition(":")[0], takeover)
