"""`htlease token` and `htlease audit`: credentials, signing keys, and who did what with them."""

from __future__ import annotations

import click

from htlease.client.client import Document, LeaseServer, as_json
from htlease.rules.attempt import check_name
from htlease_cli.parameters import DURATION, WORKFLOW, json_option
from htlease_cli.session import pass_server
from htlease_cli.tables import Table, moment_text, print_table

_ROLES = ("operator", "submitter", "reader")


@click.group()
def token() -> None:
    """Make, list and revoke tokens, and rotate the keys that sign them."""


@token.command()
@click.option("--workflow", type=WORKFLOW, help="The workflow it is good for.")
@click.option("--subjob", help="Only this subjob of it.")
@click.option("--job", metavar="GLOBALJOBID", help="Only this submission of the subjob.")
@click.option("--start", type=click.IntRange(1), help="Only this start of it, counted from 1.")
@click.option("--role", type=click.Choice(_ROLES), help="A person's or service's, not a job's.")
@click.option(
    "--workflows",
    metavar="PATTERN",
    multiple=True,
    help="Of a role: only these; NAME, or BEGINNING* for all that begin so.",
)
@click.option("--name", help="Of a submitter: who it is; owns what is made with the token.")
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
    server: LeaseServer,
    workflow: str | None,
    subjob: str | None,
    job: str | None,
    start: int | None,
    role: str | None,
    workflows: tuple[str, ...],
    name: str | None,
    ttl_seconds: float,
    wants_json: bool,
) -> None:
    """Print a token for one workflow or subjob, or of a role, and for nothing beside it.

    A subjob's token is replaced by a fresh one as long as its job renews its lease. Put the output
    into a file of mode 0600, never into a submit file.
    """
    if (workflow is None) == (role is None):
        raise click.UsageError("give --workflow, or --role; a token is for one of the two")
    if role is not None:
        if subjob or job or start:
            raise click.UsageError("--subjob, --job and --start are for a job's token")
        minted = server.mint_role_token(role, workflows, name, ttl_seconds)
    else:
        assert workflow is not None
        if workflows or name:
            raise click.UsageError("--workflows and --name are for a token of a role")
        if subjob is not None:
            check_name("subjob", subjob)
        if job is not None and subjob is None:
            raise click.UsageError("--job is a submission of one subjob; give --subjob too")
        if start is not None and job is None:
            raise click.UsageError("--start is a start of one job; give --job too")
        minted = server.mint_token(
            workflow, subjob, ttl_seconds, global_job_id=job, job_starts=start
        )
    click.echo(as_json(minted) if wants_json else minted["token"])


@token.command()
@click.argument("token_id", metavar="ID", required=False)
@click.option("--workflow", type=WORKFLOW, help="All tokens made so far for this workflow.")
@click.option("--subjob", help="Only those of this subjob of it.")
@click.option("--reason", metavar="TEXT", help="Kept in the audit.")
@pass_server
def revoke(
    server: LeaseServer,
    token_id: str | None,
    workflow: str | None,
    subjob: str | None,
    reason: str | None,
) -> None:
    """Revoke a token, with all that were made with it, or renew it.

    ID is what the history shows after `token:`. It takes effect at once, and within seconds on
    every other server of the site. Jobs that have such a token run on, but can report nothing.
    """
    if (token_id is None) == (workflow is None):
        raise click.UsageError("give the ID of a token, or --workflow")
    if subjob is not None and workflow is None:
        raise click.UsageError("--subjob is of a workflow; give --workflow too")
    server.revoke_tokens(id=token_id, workflow=workflow, subjob=subjob, reason=reason)
    what = f"token {token_id}"
    if workflow is not None:
        what = f"every token made so far for {f'{workflow}/{subjob}' if subjob else workflow}"
    click.echo(f"{what} is revoked.")


@token.command("list")
@json_option
@pass_server
def list_command(server: LeaseServer, wants_json: bool) -> None:
    """List the tokens for whole workflows and for roles; those of single jobs are in the log."""
    found = server.tokens()
    if wants_json:
        click.echo(as_json(found))
        return
    rows = [
        (
            made["token_id"],
            made["role"],
            made.get("workflow") or ", ".join(made.get("workflows") or ["its own"]),
            made.get("name") or "",
            made["actor"],
            moment_text(made["at"]),
            "revoked" if made["revoked"] else moment_text(made["expires_at"]),
        )
        for made in found["tokens"]
    ]
    columns = ("ID", "ROLE", "WORKFLOWS", "NAME", "MADE BY", "MADE (UTC)", "EXPIRES (UTC)")
    print_table(Table(columns, rows))


@token.command()
@pass_server
def keys(server: LeaseServer) -> None:
    """List the signing keys; tokens of all of them count until their files are removed."""
    _print_keys(server.keys())


@token.command("rotate-key")
@pass_server
def rotate_key(server: LeaseServer) -> None:
    """Make a new signing key, which signs from now on; the older ones go on to verify.

    Once no token of an old key is needed any more, remove its file beside the admin token:
    `signing.key` is the first, `signing.KID.key` the others. Servers notice by themselves.
    """
    _print_keys(server.rotate_key())


def _print_keys(found: Document) -> None:
    rows = [
        (
            key["kid"] or "(first)",
            f"signing.{key['kid']}.key" if key["kid"] else "signing.key",
            "signs" if key["signs"] else "verifies",
        )
        for key in found["keys"]
    ]
    print_table(Table(("KID", "FILE", "USE"), rows))


@click.command()
@json_option
@pass_server
def audit(server: LeaseServer, wants_json: bool) -> None:
    """Tell who made and revoked tokens, rotated keys, changed workflows, announced maintenance.

    What happened to a subjob, and who did it, is told by `htlease history`.
    """
    found = server.audit()
    if wants_json:
        click.echo(as_json(found))
        return
    rows = [
        (moment_text(deed["at"]), deed["deed"], deed["actor"], _about(deed))
        for deed in found["deeds"]
    ]
    print_table(Table(("AT (UTC)", "ACTION", "BY", "WHAT"), rows))


def _about(deed: Document) -> str:
    shown = ("workflow", "subjob", "token_id", "role", "workflows", "name", "kid", "reason")
    of_outages = ("flag", "is_up", "starts_at", "until_at", "ends_in_seconds", "instead_of")
    parts = [
        f"{name}={', '.join(value) if isinstance(value, list) else value}"
        for name in (*shown, *of_outages, "expires_at")
        if (value := deed.get(name)) not in (None, [])
    ]
    return " ".join(parts)
