"""`htlease maintenance`: times in which no lease runs out, whoever is down for however long."""

from __future__ import annotations

import datetime
import time

import click

from htlease.client.client import Document, LeaseServer, as_json
from htlease.errors import InvalidField, Refused
from htlease.wire.protocol import rfc3339, seconds_of
from htlease_cli.parameters import json_option, parse_duration
from htlease_cli.session import pass_server
from htlease_cli.tables import Table, moment_text, print_table

_WHEN = "2026-12-24T18:00Z (UTC where it names no zone), or a duration from now like 14d."
_REASON = click.option("--reason", metavar="TEXT", help="Shown with the window.")
_WHICH = click.argument("begin", required=False, metavar="[BEGIN]")


@click.group()
def maintenance() -> None:
    """Announce times in which no lease runs out: planned outages of pool or server.

    A lease that is live when a window begins, or is taken in it, lasts until its ttl after the
    end. Before it begins everything is as usual, and nobody needs to be there when it does.
    """


@maintenance.command()
@click.option("--until", required=True, metavar="TIME", help=_WHEN)
@_REASON
@pass_server
def start(server: LeaseServer, until: str, reason: str | None) -> None:
    """Begin now; repeated, it moves the end of the window that is open.

    A lease that is live now, or taken meanwhile, lasts until its ttl after the end.
    """
    shown = server.put_maintenance(seconds_until(until, time.time()), reason)
    click.echo(f"No lease runs out until {moment_text(shown['open']['until_at'])} UTC.")


@maintenance.command()
@click.option("--from", "begin", required=True, metavar="TIME", help=_WHEN)
@click.option("--until", required=True, metavar="TIME", help="The same.")
@_REASON
@pass_server
def announce(server: LeaseServer, begin: str, until: str, reason: str | None) -> None:
    """Have a window begin later, by the lease server's clock; nothing is different until then.

    Of a window that is announced from the same time it moves the end.
    """
    now = time.time()
    starts_at, until_at = _moment_of(begin, now), _moment_of(until, now)
    server.announce_maintenance(_to_wire(starts_at), _to_wire(until_at), reason)
    _tell_announced(starts_at, until_at)


@maintenance.command()
@_WHICH
@click.option("--from", "begin_wanted", metavar="TIME", help=f"The new begin: {_WHEN}")
@click.option("--until", metavar="TIME", help="The new end; else it is to last as long as before.")
@_REASON
@pass_server
def move(
    server: LeaseServer,
    begin: str | None,
    begin_wanted: str | None,
    until: str | None,
    reason: str | None,
) -> None:
    """Move an announced window that has not begun; BEGIN names it where there are several."""
    if begin_wanted is None and until is None:
        raise click.UsageError("nothing is to be moved; give --from, or --until, or both")
    window = _announced(server, begin)
    now = time.time()
    starts_at = begin_before = seconds_of(window["started_at"])
    if begin_wanted is not None:
        starts_at = _moment_of(begin_wanted, now)
    until_at = seconds_of(window["until_at"]) + starts_at - begin_before
    if until is not None:
        until_at = _moment_of(until, now)
    server.announce_maintenance(
        _to_wire(starts_at), _to_wire(until_at), reason, instead_of=window["started_at"]
    )
    _tell_announced(starts_at, until_at)


@maintenance.command()
@_WHICH
@pass_server
def withdraw(server: LeaseServer, begin: str | None) -> None:
    """Take an announced window back; BEGIN names it where there are several."""
    window = _announced(server, begin)
    server.withdraw_maintenance(window["started_at"])
    begin_text, end_text = moment_text(window["started_at"]), moment_text(window["until_at"])
    click.echo(f"Withdrawn: the window from {begin_text} until {end_text} UTC.")


@maintenance.command()
@pass_server
def end(server: LeaseServer) -> None:
    """End the open window now; every holder has its whole ttl from here on."""
    shown = server.maintenance()
    if shown["open"] is None:
        click.echo("No maintenance window is open; nothing changed.")
        if shown["next"] is not None:
            begin = moment_text(shown["next"]["started_at"])
            click.echo(
                f"`htlease maintenance withdraw` takes back the one announced from {begin} UTC."
            )
        return
    server.put_maintenance(0, None)
    click.echo("The maintenance is over; leases run out again.")


@maintenance.command()
@json_option
@pass_server
def status(server: LeaseServer, wants_json: bool) -> None:
    """Show the windows, the newest first; a withdrawn one is told by `htlease audit` only."""
    shown = server.maintenance()
    if wants_json:
        click.echo(as_json(shown))
    elif not shown["windows"]:
        click.echo("No maintenance window is announced, open or over.")
    else:
        print_table(Table(("", "FROM (UTC)", "UNTIL", "REASON"), _rows(shown)))


def _rows(shown: Document) -> list[tuple[str, ...]]:
    return [
        (
            "announced" if window["is_announced"] else "open" if window["is_open"] else "over",
            moment_text(window["started_at"]),
            moment_text(window["until_at"]),
            window["reason"] or "",
        )
        for window in shown["windows"]
    ]


def _announced(server: LeaseServer, begin: str | None) -> Document:
    """Return the announced window that begins then, or the only one; raises Refused, UsageError."""
    found: list[Document] = [
        window for window in server.maintenance()["windows"] if window["is_announced"]
    ]
    if not found:
        raise Refused(
            "not-found", "no window is announced; `htlease maintenance end` ends an open one"
        )
    names = [_name_of(window["started_at"]) for window in found]
    if begin is None:
        if len(found) > 1:
            raise click.UsageError(f"several windows are announced; name one: {', '.join(names)}")
        return found[0]
    wanted = _name_of(_to_wire(_moment(begin)))
    if wanted not in names:
        raise Refused(
            "not-found", f"no window is announced from {wanted}; name one: {', '.join(names)}"
        )
    return found[names.index(wanted)]


def _name_of(instant: str) -> str:
    """Return a begin as one argument that names its window."""
    return f"{instant[:19]}Z"


def _tell_announced(starts_at: float, until_at: float) -> None:
    begin, end_text = moment_text(rfc3339(starts_at)), moment_text(rfc3339(until_at))
    click.echo(f"No lease will run out from {begin} until {end_text} UTC.")


def _to_wire(at: float) -> str:
    return rfc3339(int(at))


def _moment(text: str) -> float:
    """Return a time in seconds since 1970, UTC where it names no zone; raises BadParameter."""
    try:
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a time like 2026-12-24T18:00Z nor a duration like 14d"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return moment.timestamp()


def seconds_until(text: str, now: float) -> float:
    """Return the seconds from `now` (since 1970) to a time or over a duration.

    Raises click.BadParameter.
    """
    return _moment_of(text, now) - now


def _moment_of(text: str, now: float) -> float:
    try:
        return now + parse_duration(text)
    except InvalidField:
        pass
    moment = _moment(text)
    if moment <= now:
        raise click.BadParameter(f"{text} is in the past")
    return moment
