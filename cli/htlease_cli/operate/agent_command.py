"""`htlease agent`: the options, and starting the daemon."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import re
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import ModuleType

import click

from htlease.client.connection import state_directory as state_directory_of
from htlease.errors import BadConfig, HTLeaseError
from htlease_cli.parameters import DURATION
from htlease_cli.session import Session, pass_session

SOCKET_DEFAULT = Path("/run/htlease/agent.sock")
#: Of the log; one older file is kept beside it.
_LOG_MAX_BYTES = 10 << 20

log = logging.getLogger("htlease_agent")


@click.command()
@click.option("--listen", metavar="ADDRESS:PORT", help="Pass on requests that come here.")
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    default=SOCKET_DEFAULT,
    show_default=True,
    help="Where the shadow's hook asks for tokens.",
)
@click.option("--schedd", "schedd_name", metavar="NAME", help="The schedd [this machine's].")
@click.option(
    "--token-ttl",
    "token_ttl_seconds",
    type=DURATION,
    default="7d",
    show_default=True,
    help="How long a job's token is good for.",
)
@click.option(
    "--state-dir",
    "state_directory",
    type=click.Path(path_type=Path),
    help="Where it remembers what it has reported [$XDG_STATE_HOME/htlease/agent].",
)
@click.option(
    "--poll",
    "poll_seconds",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    default=30.0,
    show_default=True,
    help="How often it looks at queue and history.",
)
@click.option(
    "--chirp-ttl",
    "chirp_ttl_seconds",
    type=DURATION,
    default="10m",
    show_default=True,
    help="How long the lease of a start without network outlives its run, or this agent.",
)
@click.option(
    "--log",
    "log_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write down there as well what it has to say; kept below 20 MB.",
)
@pass_session
def agent(
    session: Session,
    listen: str | None,
    socket_path: Path,
    schedd_name: str | None,
    token_ttl_seconds: float,
    state_directory: Path | None,
    poll_seconds: float,
    chirp_ttl_seconds: float,
    log_file: Path | None,
) -> None:
    """Run the daemon that speaks to the lease server for this access point's jobs."""
    _log_to(log_file)
    try:
        daemon = _daemon()
        options = daemon.AgentOptions(
            None if listen is None else _address(listen),
            socket_path,
            schedd_name,
            token_ttl_seconds,
            state_directory or state_directory_of(os.environ) / "agent",
            poll_seconds,
            chirp_ttl_seconds,
        )
        asyncio.run(daemon.run(options, session.connection, log.info))
    except (HTLeaseError, click.ClickException) as error:
        if log_file is not None:  # it is said on standard error in any case
            log.error("the agent ends: %s", error)
        raise
    except Exception:
        log.exception("the agent ends")
        raise


def _log_to(path: Path | None) -> None:
    """Log to standard error, which condor_master keeps nowhere, and to a file; raises BadConfig."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if path is not None:
        try:
            handlers.append(RotatingFileHandler(path, maxBytes=_LOG_MAX_BYTES, backupCount=1))
        except OSError as error:
            raise BadConfig(f"--log {path}: {error.strerror}; name another file") from None
    logging.basicConfig(
        handlers=handlers, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )


def _daemon() -> ModuleType:
    """Return the module of the daemon; raises BadConfig where its packages are missing."""
    try:
        return importlib.import_module("htlease_agent.daemon")
    except ImportError as error:
        raise BadConfig(
            f"the agent's packages are not installed ({error.name}); install them with "
            "`pip install 'htlease[agent]'`"
        ) from None


def _address(text: str) -> tuple[str, int]:
    match = re.fullmatch(
        r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:\s]+)):(?P<port>\d{1,5})", text
    )
    if match is None or int(match["port"]) > 65535:
        raise click.UsageError(f"--listen {text!r} is not ADDRESS:PORT")
    return match["six"] or match["host"], int(match["port"])
