"""Plans in the bodies of calls."""

from __future__ import annotations

import dataclasses
from typing import Any

from htlease.plan import Plan


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return a plan as it stands in a body of the wire protocol."""
    phases = [dataclasses.asdict(phase) for phase in plan.phases]
    return {"phases": phases, "takeover": plan.takeover, "on_wall_time": plan.on_wall_time}
