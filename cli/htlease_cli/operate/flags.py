"""`htlease flag`: switches that keep phases from being entered while what they need is away."""

from __future__ import annotations

import click

from htlease.client.client import LeaseServer, as_json
from htlease.rules.attempt import check_name
from htlease_cli.parameters import NAME, json_option
from htlease_cli.session import pass_server
from htlease_cli.tables import Table, moment_text, print_table

_NAME = click.argument("name", type=NAME)


@click.group()
def flag() -> None:
    """Hold back phases while a system that they need is away.

    A phase of a plan with needs = ["hpss"] is not entered anywhere while the flag hpss is down:
    jobs that run keep their lease and wait, and DAGs submit no job for it. A flag that nobody ever
    lowered is up. NAME@GROUP is for workflows with the label group=GROUP alone.
    """


@flag.command()
@_NAME
@click.option("--reason", metavar="TEXT", required=True, help="Told to everybody who waits.")
@pass_server
def lower(server: LeaseServer, name: str, reason: str) -> None:
    """Hold back, from now on, the phases that need NAME; what has begun goes on."""
    server.put_flag(name, False, reason)
    click.echo(f"{name} is down. `htlease flag raise {name}` lets phases go on.")


@flag.command("raise")
@_NAME
@click.option("--reason", metavar="TEXT", help="Kept with the flag.")
@pass_server
def raise_(server: LeaseServer, name: str, reason: str | None) -> None:
    """Let the phases that need NAME be entered again; who waits for it goes on by itself."""
    was_down = any(one["name"] == name and not one["is_up"] for one in server.flags()["flags"])
    server.put_flag(name, True, reason)
    if was_down:
        click.echo(f"{name} is up; what waited for it continues within half a minute.")
    else:
        click.echo(f"{name} was up already; `htlease flag list` shows what is down.")


@flag.command("list")
@click.option("--workflow", metavar="NAME", help="Only the flags that concern this workflow.")
@json_option
@pass_server
def list_(server: LeaseServer, workflow: str | None, wants_json: bool) -> None:
    """Show the flags that were ever changed; all others are up."""
    if workflow is not None:
        check_name("workflow", workflow)
    shown = server.flags(workflow)
    if wants_json:
        click.echo(as_json(shown))
    elif not shown["flags"]:
        click.echo("Every flag is up: none was ever lowered.")
    else:
        rows = [
            (
                one["name"],
                "up" if one["is_up"] else "down",
                moment_text(one["changed_at"]),
                one["actor"],
                one["reason"] or "",
            )
            for one in shown["flags"]
        ]
        print_table(Table(("FLAG", "IS", "SINCE (UTC)", "BY", "REASON"), rows))
