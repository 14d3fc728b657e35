"""`htlease scenario`."""

from __future__ import annotations

import time

import click

from htlease.errors import BadConfig, HTLeaseError

_NAMES = (
    "A",
    "B",
    "C",
    "D",
    "E",
    "lost-reply",
    "crash",
    "kills",
    "hold",
    "maintenance",
    "walltime",
)
_POOL = "scenario"


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--watcher",
    "watchers",
    type=click.Choice(("job", "chain", "defer")),
    multiple=True,
    default=("job",),
    show_default=True,
    help="One long watcher, a chain of short ones, or a PRE script that DAGMan runs again. May be"
    " given several times.",
)
@click.option(
    "--backend", type=click.Choice(("command", "globus")), default="command", show_default=True
)
@click.option("--suite", help="Debian suite of the pool's HTCondor [HTLEASE_POOL_SUITE].")
def scenario(
    names: tuple[str, ...], watchers: tuple[str, ...], backend: str, suite: str | None
) -> None:
    """Run scenarios on a personal pool, with a transfer service that can be broken.

    A: the transfer pauses. B: the stage-in fails. C: the credential expires. D: queue and lease
    server are lost in the middle of the stage-in. E: a transfer from elsewhere is grafted on, which
    runs, is finished, failed, or unknown. lost-reply: D, and nobody ever heard the task's ID.
    crash: schedd, DAGMan and watcher are killed. kills: the stage-in fails, and somebody is killed
    at the worst moment. hold: `htlease dag hold` and `release`.
    maintenance: in a window announced before, lease server and pool are off for longer than any
    lease. walltime: a job has had its time, with each policy of its plan.

    Tells what is done and what is seen; ends with 1 if anything is not as it should be.
    """
    for name in names:
        if name not in _NAMES:
            raise click.UsageError(f"there is no scenario {name}; there are {', '.join(_NAMES)}")
    try:
        from htlease_lab.scenarios.environment import Environment, PoolError
        from htlease_lab.scenarios.runner import Summary
        from htlease_lab.scenarios.scenario_table import SCENARIOS
    except ImportError as error:
        raise BadConfig(f"the personal pool is not installed here ({error.name})") from None
    environment = Environment(_POOL, suite, _say)
    summary = Summary()
    try:
        environment.up()
        for name in names:
            for one in SCENARIOS[name]:
                for watcher in watchers if one.uses_watchers else watchers[:1]:
                    began_at = time.monotonic()
                    summary.add(one, one.run(environment, watcher, backend), began_at)
    except PoolError as error:
        raise HTLeaseError(f"{error} The run stops here") from None
    finally:
        environment.down()
    click.echo()
    for line in summary.lines():
        click.echo(line)
    if summary.wrong:
        raise HTLeaseError(f"{summary.wrong} things were not as they should be; see above")


def _say(text: str, colour: str | None = None) -> None:
    click.secho(f"{time.strftime('%H:%M:%S')} {text}", fg=colour, bold=colour == "blue")
