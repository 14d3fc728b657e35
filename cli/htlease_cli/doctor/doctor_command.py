"""`htlease doctor`: look at the whole set-up and say what to do about it."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import click

from htlease.client.client import LeaseServer, as_json
from htlease.client.connection import Connection
from htlease.condor import bindings_process as schedd
from htlease.condor.condor_config import ConfigRejected, find_config
from htlease.errors import BadConfig, HTLeaseError, Refused, ServerUnavailable
from htlease.rules.plan import TTL_DEFAULT_SECONDS
from htlease.wire.protocol import seconds_of
from htlease_cli import installed_version
from htlease_cli.doctor.agent_state import agent_state
from htlease_cli.doctor.checks import (
    KNOBS,
    OK,
    PROBLEM,
    WARNING,
    Check,
    Reach,
    address_check,
    clock_check,
    knob_checks,
    token_check,
    wrapper_check,
)
from htlease_cli.doctor.hook_checks import hook_checks
from htlease_cli.doctor.hook_facts import hook_facts
from htlease_cli.doctor.hook_macros import CHECKED, macro_checks
from htlease_cli.parameters import DURATION, json_option
from htlease_cli.pyz import find_pyz, version_of
from htlease_cli.session import Session, pass_session
from htlease_cli.tables import Table, print_table

#: A name that no workflow has, to ask by; asking changes nothing.
_NOBODY = "htlease-doctor"
_PROBE_TTL_SECONDS = 60.0


@click.command()
@click.option("--pyz", type=click.Path(path_type=Path), help="The wrapper file you submit with.")
@click.option(
    "--ttl",
    "ttl_seconds",
    type=DURATION,
    default=f"{TTL_DEFAULT_SECONDS:g}s",
    show_default=True,
    help="How long your leases last.",
)
@click.option("--schedd", "schedd_name", metavar="NAME", help="The schedd you submit to.")
@json_option
@pass_session
def doctor(
    session: Session,
    pyz: Path | None,
    ttl_seconds: float,
    schedd_name: str | None,
    wants_json: bool,
) -> None:
    """Check server, token, clock, wrapper and HTCondor; exits 1 if there is a problem."""
    checks = [
        *_server_checks(session),
        _wrapper_check(pyz),
        *_schedd_checks(schedd_name, ttl_seconds),
        *_hook_checks(),
    ]
    if wants_json:
        click.echo(as_json({"checks": [dataclasses.asdict(check) for check in checks]}))
    else:
        rows = [(check.verdict, check.name, check.finding) for check in checks]
        print_table(Table(("", "CHECK", "FOUND"), rows))
        _print_remedies(checks)
    if any(check.verdict == PROBLEM for check in checks):
        sys.exit(1)


def _print_remedies(checks: list[Check]) -> None:
    remedies = [check for check in checks if check.remedy]
    if remedies:
        click.echo("\nWhat to do:")
    for check in remedies:
        click.echo(f"  {check.name}: {check.remedy}")


def _server_checks(session: Session) -> Iterator[Check]:
    try:
        connection = session.connection()
        server = LeaseServer.at(connection)
    except BadConfig as error:
        yield Check("server", PROBLEM, str(error), "mend that first")
        return
    try:
        server.ready()
    except (ServerUnavailable, Refused) as error:
        yield Check(
            "server", PROBLEM, str(error), "start it, or name another with --server or HTLEASE_URL"
        )
        return
    yield Check("server", OK, f"{connection.url} answers and can write")
    yield address_check(connection.url, urlsplit(connection.url).hostname or "")
    yield from _token_checks(connection, server)


def _token_checks(connection: Connection, server: LeaseServer) -> Iterator[Check]:
    source = connection.credential.source if connection.credential else None
    try:
        asked_at = time.time()
        minted = server.mint_token(_NOBODY, _NOBODY, _PROBE_TTL_SECONDS)
    except Refused as refused:
        if refused.code == "forbidden":
            yield token_check(source, None, Reach.SOME if server.may_list() else Reach.ONE)
        else:
            is_open = refused.code == "invalid"  # a server without authentication mints none
            yield token_check(source, None if is_open else refused.detail, Reach.ALL)
        return
    except ServerUnavailable as error:
        yield Check("token", PROBLEM, str(error), "see whether the server still runs")
        return
    yield token_check(source, None, Reach.ALL)
    expires_at = seconds_of(minted["expires_at"])
    yield clock_check(asked_at - (expires_at - _PROBE_TTL_SECONDS))


def _wrapper_check(pyz: Path | None) -> Check:
    try:
        found = find_pyz(pyz)
    except BadConfig as error:
        return Check("wrapper", PROBLEM, str(error), "`make ep` builds it; --pyz names it")
    return wrapper_check(str(found), version_of(found), installed_version())


def _schedd_checks(name: str | None, ttl_seconds: float) -> Iterator[Check]:
    try:
        access_point = schedd.locate(name)
        knobs = schedd.read_knobs(KNOBS)
    except HTLeaseError as error:
        if name is not None:
            yield Check("schedd", PROBLEM, str(error), "`condor_status -schedd` lists them")
            return
        yield Check(
            "schedd",
            WARNING,
            str(error),
            "needed for `htlease submit` only; plain condor_submit does not need the bindings",
        )
        return
    yield Check("schedd", OK, f"{access_point.name}, HTCondor {access_point.version}")
    yield from knob_checks(knobs, ttl_seconds)


def _hook_checks() -> Iterator[Check]:
    """Look at the hooks of this machine; without HTCondor's own tools there is nothing to see."""
    try:
        config = find_config(os.environ)
        values, version, faults = hook_facts(config)
    except ConfigRejected as error:
        yield Check("HTCondor", PROBLEM, str(error), "mend that first")
        return
    except BadConfig:
        return
    checks = hook_checks(values, version, faults, agent_state(config, values))
    if checks:
        checks += macro_checks(config.values(tuple(CHECKED)), config.names("HTLEASE_"))
    yield from checks
