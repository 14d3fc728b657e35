"""`htlease serve`: start the lease server in this process."""

from __future__ import annotations

from pathlib import Path

import click

from htlease.errors import BadConfig


@click.command()
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where to listen [127.0.0.1:8620]; port 0 takes a free one.",
)
@click.option("--store", metavar="sqlite:///PATH", help="Where to keep leases and history.")
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
@click.option("--no-auth", is_flag=True, help="Let everybody in; on loopback only.")
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path),
    help="PEM file with the certificate chain: serve https. Read again when it changes.",
)
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM file with its key.")
def serve(
    listen: str | None,
    store: str | None,
    admin_token_file: Path | None,
    state_dir: Path | None,
    no_auth: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    """Run the lease server until it is told to stop; needs no configuration."""
    try:
        from htlease_server.serve import LISTEN_DEFAULT, ServeOptions
        from htlease_server.serve import serve as run_server
    except ImportError as error:
        raise BadConfig(
            f"the server's packages are not installed ({error.name}); install them with "
            "`pip install 'htlease[server]'`"
        ) from None
    options = ServeOptions(
        listen or LISTEN_DEFAULT, store, admin_token_file, state_dir, no_auth, tls_cert, tls_key
    )
    run_server(options, click.echo)
