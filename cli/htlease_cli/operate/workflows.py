"""`htlease workflow`: what a workflow's subjobs have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from htlease.client.client import LeaseServer, as_json
from htlease.config.plan_file import read_plan_file
from htlease.rules.attempt import SubjobKey
from htlease.rules.profiles import PROFILE_NAMES, find_flow
from htlease_cli.operate.plans import plan_document
from htlease_cli.parameters import WORKFLOW, json_option
from htlease_cli.session import pass_server


@click.group()
def workflow() -> None:
    """Make and change workflows."""


@workflow.command()
@click.argument("name", type=WORKFLOW)
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Plan (TOML or JSON) for subjobs that bring none.",
)
@click.option(
    "--profile",
    metavar="PROFILE[:FLOW]",
    help=f"A state machine instead of a plan: {', '.join(PROFILE_NAMES)}.",
)
@click.option("labels", "--label", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--template", is_flag=True, help="May only be copied, never run.")
@click.option("--copy-of", type=WORKFLOW, metavar="WORKFLOW", help="Begin with that one's parts.")
@json_option
@pass_server
def put(
    server: LeaseServer,
    name: str,
    plan_file: Path | None,
    profile: str | None,
    labels: tuple[str, ...],
    template: bool,
    copy_of: str | None,
    wants_json: bool,
) -> None:
    """Make a workflow, or change the named parts of one that exists."""
    if plan_file and profile:
        raise click.UsageError("--plan and --profile both say which phases there are; give one")
    fields: dict[str, Any] = {}
    if plan_file:
        fields["plan"] = plan_document(read_plan_file(plan_file).plan)
    if profile:
        find_flow(profile)  # complains here, naming the profiles that there are
        fields["profile"] = profile
    if labels:
        fields["labels"] = dict(_label(text) for text in labels)
    if template:
        fields["template"] = True
    if copy_of:
        fields["copy_of"] = copy_of
    document = server.put_workflow(name, fields)
    if wants_json:
        click.echo(as_json(document))
        return
    parts = ", ".join(part for part in fields) or "nothing but its name"
    click.echo(f"workflow {name} is there (given: {parts}).")


@workflow.command()
@click.argument("name", type=WORKFLOW)
@pass_server
def export(server: LeaseServer, name: str) -> None:
    """Print everything that the server knows of a workflow, as one JSON document.

    Its shape and files without secrets, and of each subjob state, submissions, attempts, external
    IDs and history. `htlease dag rebuild` makes a DAG from it.
    """
    whole = server.workflow(name)
    summaries = whole.pop("subjobs")
    subjobs = []
    for summary in summaries:
        key = SubjobKey(name, summary["subjob"])
        subjobs.append({**server.subjob(key), "history": server.history(key)["events"]})
    click.echo(as_json({"export": 1, "workflow": whole, "subjobs": subjobs}))


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.UsageError(f"--label {text!r} is not NAME=VALUE")
    return name, value
