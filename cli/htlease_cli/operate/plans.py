"""Plans in the bodies of calls, and `htlease plan check`."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import click

from htlease.config.plan_file import RESTART_DEFAULT, read_plan_file
from htlease.rules.plan import TTL_DEFAULT_SECONDS, Plan
from htlease_cli.tables import Table, print_table

_RESTARTS = {
    "redo": "every attempt runs it again",
    "resume": "the next attempt runs it again, with the details that the last one saved",
    "once": "no attempt runs it again once it is complete",
}


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return a plan as it stands in a body of the wire protocol."""
    phases = [dataclasses.asdict(phase) for phase in plan.phases]
    return {"phases": phases, "takeover": plan.takeover, "on_wall_time": plan.on_wall_time}


@click.group()
def plan() -> None:
    """Look at plan files."""


@plan.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Read a plan FILE (TOML or JSON) and show what it says, defaults included."""
    found = read_plan_file(file)
    rows = [
        (
            phase.name,
            phase.restart,
            "yes" if phase.exclusive else "no",
            " ".join(phase.needs),
            shlex.join(found.commands.get(phase.name, ())),
        )
        for phase in found.plan.phases
    ]
    print_table(Table(("PHASE", "RESTART", "EXCLUSIVE", "NEEDS", "RUNS"), rows))
    click.echo()
    for restart, meaning in _RESTARTS.items():
        if any(phase.restart == restart for phase in found.plan.phases):
            default = "; what a phase without `restart` does" if restart == RESTART_DEFAULT else ""
            click.echo(f"{restart}: {meaning}{default}.")
    ttl_seconds = TTL_DEFAULT_SECONDS if found.ttl_seconds is None else found.ttl_seconds
    click.echo(f"A lease lasts {ttl_seconds:g} s unrenewed; takeover: {found.plan.takeover}.")
