"""`htlease serve`: start the lease server in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from htlease.errors import BadConfig


@click.command()
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where to listen [127.0.0.1:8620]; port 0 takes a free one.",
)
@click.option(
    "--store",
    metavar="URL",
    help="Where to keep leases and history: sqlite:///PATH (absolute: sqlite:////srv/x),"
    " or postgresql://USER@HOST/DATABASE, which several servers may share.",
)
@click.option(
    "--admin-token-file",
    type=click.Path(path_type=Path),
    help="File of the admin token; made, mode 0600, when absent.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    help="Directory for whatever is not named [$XDG_STATE_HOME/htlease].",
)
@click.option(
    "--auth-config",
    type=click.Path(path_type=Path),
    help="TOML file: whose SciTokens and WLCG tokens are accepted, and as what.",
)
@click.option("--no-auth", is_flag=True, help="Let everybody in; on loopback only.")
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path),
    help="PEM file with the certificate chain: serve https. Read again when it changes.",
)
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM file with its key.")
@click.option(
    "--rate-limit",
    type=click.FloatRange(min=0),
    default=500,
    show_default=True,
    metavar="PER_SECOND",
    help="Requests that one token may send, plain renewals and the administrator's apart;"
    " 0: any number.",
)
@click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="One line for each event, for people or for programs.",
)
@click.option(
    "--log-level",
    type=click.Choice(("debug", "info", "warning", "error")),
    default="info",
    show_default=True,
    help="debug has a line for every request.",
)
@click.option(
    "--log-file",
    type=click.Path(path_type=Path),
    help="Log there and not to stderr; made anew when it was moved away.",
)
def serve(**given: Any) -> None:
    """Run the lease server until it is told to stop; needs no configuration.

    SIGHUP makes it look at its certificate again; SIGTERM, SIGINT and SIGQUIT end it after the
    answers that are due.
    """
    try:
        from htlease_server.serve import ServeOptions
        from htlease_server.serve import serve as run_server
    except ImportError as error:
        raise BadConfig(
            f"the server's packages are not installed ({error.name}); install them with "
            "`pip install 'htlease[server]'`"
        ) from None
    options = ServeOptions(**{name: value for name, value in given.items() if value is not None})
    run_server(options, click.echo)
