"""`htlease maintenance`: times in which no lease runs out, whoever is down for however long."""

from __future__ import annotations

import datetime
import time

import click

from htlease.errors import InvalidField
from htlease_admin.lease_server import Document, LeaseServer, as_json
from htlease_admin.parameters import json_option, parse_duration
from htlease_admin.session import pass_server
from htlease_admin.tables import Table, moment_text, print_table


@click.group()
def maintenance() -> None:
    """Announce times in which no lease runs out: planned outages of pool or server."""


@maintenance.command()
@click.option(
    "--until",
    required=True,
    metavar="TIME",
    help="2026-12-24T18:00Z (UTC where it names no zone), or a duration from now like 14d.",
)
@click.option("--reason", metavar="TEXT", help="Shown with the window.")
@pass_server
def start(server: LeaseServer, until: str, reason: str | None) -> None:
    """Begin now; repeated, it moves the end of the window that is open.

    A lease that is live now, or taken meanwhile, lasts until its ttl after the end.
    """
    shown = server.put_maintenance(seconds_until(until, time.time()), reason)
    click.echo(f"No lease runs out until {moment_text(shown['open']['until_at'])} UTC.")


@maintenance.command()
@pass_server
def end(server: LeaseServer) -> None:
    """End the open window now; every holder has its whole ttl from here on."""
    if server.maintenance()["open"] is None:
        click.echo("No maintenance window is open; nothing changed.")
        return
    server.put_maintenance(0, None)
    click.echo("The maintenance is over; leases run out again.")


@maintenance.command()
@json_option
@pass_server
def status(server: LeaseServer, wants_json: bool) -> None:
    """Show the windows, the newest first."""
    shown = server.maintenance()
    if wants_json:
        click.echo(as_json(shown))
    elif not shown["windows"]:
        click.echo("No maintenance was ever announced.")
    else:
        print_table(Table(("", "FROM (UTC)", "UNTIL", "REASON"), _rows(shown)))


def _rows(shown: Document) -> list[tuple[str, ...]]:
    return [
        (
            "open" if window["is_open"] else "over",
            moment_text(window["started_at"]),
            moment_text(window["until_at"]),
            window["reason"] or "",
        )
        for window in shown["windows"]
    ]


def seconds_until(text: str, now: float) -> float:
    """Return the seconds from `now` (since 1970) to a time or over a duration.

    Raises click.BadParameter.
    """
    try:
        return parse_duration(text)
    except InvalidField:
        pass
    try:
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a time like 2026-12-24T18:00Z nor a duration like 14d"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    seconds = moment.timestamp() - now
    if seconds <= 0:
        raise click.BadParameter(f"{text} is in the past")
    return seconds
