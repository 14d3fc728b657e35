"""`htlease token`: credentials for jobs."""

from __future__ import annotations

import click

from htlease.attempt import check_name
from htlease_admin.lease_server import LeaseServer, as_json
from htlease_admin.parameters import DURATION, WORKFLOW, json_option
from htlease_admin.session import pass_server


@click.group()
def token() -> None:
    """Make credentials for jobs."""


@token.command()
@click.option("--workflow", required=True, type=WORKFLOW, help="The workflow it is good for.")
@click.option("--subjob", help="Only this subjob of it.")
@click.option(
    "--ttl",
    "ttl_seconds",
    type=DURATION,
    default="1h",
    show_default=True,
    help="How long it is good for: 90s, 15m, 1h, 7d.",
)
@json_option
@pass_server
def mint(
    server: LeaseServer, workflow: str, subjob: str | None, ttl_seconds: float, wants_json: bool
) -> None:
    """Print a token that may act in one workflow or subjob, and nothing beside it.

    Needs the admin token. Put the output into a file of mode 0600, never into a submit file.
    """
    if subjob is not None:
        check_name("subjob", subjob)
    minted = server.mint_token(workflow, subjob, ttl_seconds)
    click.echo(as_json(minted) if wants_json else minted["token"])
