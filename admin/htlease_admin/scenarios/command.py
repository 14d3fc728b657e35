"""`htlease scenario`."""

from __future__ import annotations

import time

import click

from htlease.errors import BadConfig, HTLeaseError

_NAMES = ("A", "B", "C", "D", "E", "lost-reply")
_POOL = "scenario"


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="A|B|C|D|E|lost-reply...")
@click.option(
    "--watcher",
    type=click.Choice(("job", "chain", "defer")),
    default="job",
    show_default=True,
    help="One long watcher, a chain of short ones, or a PRE script that DAGMan runs again.",
)
@click.option(
    "--backend", type=click.Choice(("command", "globus")), default="command", show_default=True
)
@click.option("--suite", help="Debian suite of the pool's HTCondor [HTLEASE_POOL_SUITE].")
def scenario(names: tuple[str, ...], watcher: str, backend: str, suite: str | None) -> None:
    """Play a staging scenario on a personal pool, with a transfer service that can be broken.

    A: the transfer pauses. B: the stage-in fails. C: the credential expires. D: queue and lease
    server are lost in the middle of the stage-in. E: a transfer from elsewhere is grafted on, which
    runs, is finished, failed, or unknown. lost-reply: D, and nobody ever heard the task's ID.
    """
    for name in names:
        if name not in _NAMES:
            raise click.UsageError(f"there is no scenario {name}; there are {', '.join(_NAMES)}")
    try:
        from htlease_admin.scenarios.plays import SCENARIOS
        from htlease_admin.scenarios.stage import Stage
    except ImportError as error:
        raise BadConfig(f"the personal pool is not installed here ({error.name})") from None
    stage = Stage(_POOL, suite, _say, _say)
    wrong = []
    try:
        stage.up()
        for name in names:
            for play in SCENARIOS[name]:
                wrong += play(stage, watcher, backend).wrong
    finally:
        stage.down()
    if wrong:
        raise HTLeaseError(f"{len(wrong)} things were not as they should be; see above")
    _say("all was as it should be")


def _say(text: str) -> None:
    click.echo(f"[{time.strftime('%H:%M:%S')}] {text}")
