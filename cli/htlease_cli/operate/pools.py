"""`htlease pool`: the personal pool's own command line, where it is installed."""

from __future__ import annotations

import importlib.util
import os
import sys

import click

from htlease.errors import BadConfig

_PACKAGE = "htlease_lab.pool"


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def pool(arguments: tuple[str, ...]) -> None:
    """Start, use and disturb a personal HTCondor pool (up, share, run, down, ...)."""
    if importlib.util.find_spec(_PACKAGE) is None:
        raise BadConfig(f"the personal pool ({_PACKAGE}) is not installed here")
    os.execv(sys.executable, [sys.executable, "-m", _PACKAGE, *arguments])
