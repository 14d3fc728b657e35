"""The commands by which a person changes a subjob: cancel, commit, settle.

An operator is a holder like any other: commit and settle take the lease first, so they can never
cut into a running attempt. Only cancel acts on a subjob that somebody holds.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

import click

from htlease.client.client import Document, LeaseServer
from htlease.errors import Refused
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey, check_name
from htlease_cli.parameters import KEY
from htlease_cli.session import pass_server
from htlease_cli.tables import duration_text

#: An operator's lease only spans the two calls that follow each other.
_OPERATOR_TTL_SECONDS = 30.0

_reason_option = click.option("--reason", metavar="TEXT", help="Kept in the history.")


@click.command()
@click.argument("key", type=KEY)
@_reason_option
@pass_server
def cancel(server: LeaseServer, key: SubjobKey, reason: str | None) -> None:
    """Close a subjob as cancelled, whoever holds it; the holder is told to stop."""
    before = server.subjob(key)
    server.command(key, m.Cancel(reason))
    if before["outcome"] == "cancelled":
        click.echo(f"{key} was cancelled already; nothing changed.")
        return
    stopped = ""
    if before["status"] in ("active", "recalled", "lapsed"):
        where = f" on {before['host']}" if before.get("host") else ""
        stopped = (
            f" Attempt {before['attempt_number']}{where} is told to stop at its next renewal; "
            "remove the job itself with condor_rm."
        )
    click.echo(f"{key} is cancelled (it was {before['status']}).{stopped}")


@click.command()
@click.argument("name", metavar="WORKFLOW[/SUBJOB]")
@_reason_option
@pass_server
def commit(server: LeaseServer, name: str, reason: str | None) -> None:
    """Close a subjob as complete: its phases are done and its outputs came back.

    Of a WORKFLOW: each subjob whose job has ended with 0, all its phases done.
    """
    if "/" in name:
        _commit(server, SubjobKey.parse(name), reason)
        return
    workflow = check_name("workflow", name)
    exited = [
        SubjobKey(workflow, one["subjob"])
        for one in server.workflow(workflow)["subjobs"]
        if one["status"] == "exited"
    ]
    left = []
    for key in exited:
        before = server.subjob(key)
        if before.get("exit_code") == 0 and not _missing(before):
            _commit(server, key, reason)
        else:
            left.append(str(key))
    if left:
        raise Refused(
            "phase-order",
            f"{', '.join(left)} did not end with 0 and all phases done; `htlease explain "
            f"{left[0]}` says what to do",
        )
    if not exited:
        click.echo(f"nothing of {workflow} waits to be committed; `htlease show {workflow}`.")


def _missing(subjob: Document) -> list[str]:
    return [phase["name"] for phase in subjob["phases"] if not phase.get("completed_fence")]


def _commit(server: LeaseServer, key: SubjobKey, reason: str | None) -> None:
    before = server.subjob(key)
    missing = _missing(before)
    if missing and before["outcome"] is None:
        # Asked before the lease is taken, so that a refusal leaves the subjob as it was.
        raise Refused(
            "phase-order",
            f"{key} is {before['status']} and these phases are not complete: {', '.join(missing)}; "
            "let an attempt finish them, or say what is true with `htlease settle`",
        )
    _close(server, key, before, "complete", lambda fence, nonce: m.Commit(fence, nonce, reason))


@click.command()
@click.argument("key", type=KEY)
@click.option("--outcome", required=True, type=click.Choice(m.OUTCOMES), help="What is true of it.")
@_reason_option
@pass_server
def settle(server: LeaseServer, key: SubjobKey, outcome: str, reason: str | None) -> None:
    """Close a subjob with the outcome that you have found to be true."""
    settle_as(server, key, outcome, reason)


def settle_as(server: LeaseServer, key: SubjobKey, outcome: str, reason: str | None) -> None:
    """Settle a subjob that nobody holds, and say what changed; raises Refused."""
    before = server.subjob(key)
    _close(
        server, key, before, outcome, lambda fence, nonce: m.Settle(fence, nonce, outcome, reason)
    )


def _close(
    server: LeaseServer,
    key: SubjobKey,
    before: Document,
    outcome: str,
    closing: Callable[[int, str], m.Command],
) -> None:
    """Take the lease as an operator, close the subjob, and say what changed."""
    if before["outcome"] is not None:
        if before["outcome"] == outcome:
            click.echo(f"{key} is {outcome} already; nothing changed.")
            return
        raise Refused(
            "subjob-closed",
            f"{key} is {before['outcome']} already; only a new submission opens it again",
        )
    nonce = secrets.token_hex(16)
    acquire = m.Acquire(
        nonce, "operator", host=socket.gethostname(), ttl_seconds=_OPERATOR_TTL_SECONDS
    )
    try:
        grant = server.command(key, acquire, "fence")
    except Refused as refused:
        if refused.code == "subjob-closed" and refused.outcome == outcome:
            click.echo(f"{key} is {outcome} (it was {before['status']}): nothing was left to run.")
            return
        if refused.code == "lease-still-live":
            raise Refused(refused.code, _held_text(key, before)) from refused
        raise
    try:
        server.command(key, closing(grant["fence"], nonce))
    except Refused:
        server.command(key, m.Abandon(grant["fence"], nonce, f"could not close as {outcome}"))
        raise
    click.echo(f"{key} is {outcome} (it was {before['status']}; fence {grant['fence']}).")


def _held_text(key: SubjobKey, before: Document) -> str:
    where = f" on {before['host']}" if before.get("host") else ""
    remaining = before.get("expires_in_seconds")
    until = f" for another {duration_text(remaining)}" if remaining else ""
    return (
        f"attempt {before['attempt_number']}{where} holds the lease of {key}{until}; stop its job "
        "(condor_hold, condor_rm) and try again, or `htlease cancel` it"
    )
