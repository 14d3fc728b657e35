"""Plan files on the access point."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from htlease.plan import Plan
from htlease.plan_file import read_plan_file


def read_plan(path: Path) -> tuple[Plan, bool]:
    """Return the plan in a file, and whether it says what each phase runs; raises BadConfig."""
    file = read_plan_file(path)
    return file.plan, bool(file.commands)


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return a plan as it stands in a body of the wire protocol."""
    phases = [dataclasses.asdict(phase) for phase in plan.phases]
    return {"phases": phases, "takeover": plan.takeover}
