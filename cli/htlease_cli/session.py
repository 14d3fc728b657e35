"""How a command gets at the server: the connection options, before or after the verb."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from htlease.client.client import LeaseServer
from htlease.client.connection import Connection, find_connection


@dataclass(frozen=True)
class Session:
    """The connection options as they were given."""

    url: str | None = None
    admin_token_file: Path | None = None

    def connection(self) -> Connection:
        """Settle where the server is; raises BadConfig."""
        return find_connection(self.url, self.admin_token_file, os.environ, os.geteuid())

    def server(self) -> LeaseServer:
        """Return the server to speak to; raises BadConfig."""
        return LeaseServer.at(self.connection())


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the two options to a command or group."""
    url = click.option(
        "--server",
        "url",
        metavar="URL",
        help="Lease server [HTLEASE_URL or http://127.0.0.1:8620].",
    )
    token = click.option(
        "--admin-token-file",
        type=click.Path(path_type=Path),
        help="Admin token [HTLEASE_ADMIN_TOKEN_FILE, or the one that `htlease serve` made].",
    )
    return url(token(command))


def pass_session(command: Callable[..., Any]) -> Callable[..., Any]:
    """Call a command with the session first, its own connection options worked in."""

    @connection_options
    @functools.wraps(command)
    def wrapped(*args: Any, url: str | None, admin_token_file: Path | None, **kwargs: Any) -> Any:
        session: Session = click.get_current_context().obj
        if url is not None:
            session = replace(session, url=url)
        if admin_token_file is not None:
            session = replace(session, admin_token_file=admin_token_file)
        return command(session, *args, **kwargs)

    return wrapped


def pass_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """Call a command with the server first."""

    @pass_session
    @functools.wraps(command)
    def wrapped(session: Session, *args: Any, **kwargs: Any) -> Any:
        return command(session.server(), *args, **kwargs)

    return wrapped
