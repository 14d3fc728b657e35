"""`htlease pool`: the personal pool's own command line, where it is installed."""

from __future__ import annotations

import sys

import click

from htlease.errors import BadConfig


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def pool(arguments: tuple[str, ...]) -> None:
    """Start, stop and disturb a personal HTCondor pool (up, status, down, ...)."""
    try:
        from htlease_minipool.cli import main
    except ImportError as error:
        raise BadConfig(f"the personal pool is not installed here ({error.name})") from None
    sys.exit(main(arguments))
