"""`htlease stage init|adopt|check|waive`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from htlease.client.client import LeaseServer
from htlease.errors import BadConfig, HTLeaseError
from htlease.rules.attempt import SubjobKey
from htlease_cli.operate.close import settle_as
from htlease_cli.parameters import DURATION
from htlease_cli.session import pass_server
from htlease_cli.staging.make_workflow import find_program, make
from htlease_dagman.staging.backends.registry import open_backend
from htlease_dagman.staging.engine import Adopted
from htlease_dagman.staging.staging_file import (
    STAGE_IN,
    STAGE_OUT,
    STAGES,
    StagingFile,
    read_staging_file,
)
from htlease_dagman.staging.staging_settings import read_settings, settings_path, write_settings
from htlease_dagman.staging.transfer import State, TaskStatus, TransferError
from htlease_dagman.staging.watch_command import watch
from htlease_dagman.staging.watcher import DONE, LATER

_FILE = click.argument("path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))


@click.group()
def stage() -> None:
    """Move data before and after a job, by transfers that are never started twice."""


@stage.command()
@_FILE
@click.option("--adopt", "task", metavar="TASK_ID", help="The stage-in runs already: watch it.")
@click.option("--no-check", is_flag=True, help="Do not ask the transfer service about the places.")
@click.option("--pyz", type=click.Path(path_type=Path), help="The wrapper, for the clean-up.")
@click.option("--program", type=click.Path(path_type=Path), help="Where `htlease-dag` is.")
@click.option(
    "--token-ttl",
    "token_ttl_seconds",
    type=DURATION,
    default="90d",
    show_default=True,
    help="How long the workflow's token is good for.",
)
@pass_server
def init(
    server: LeaseServer,
    path: Path,
    task: str | None,
    no_check: bool,
    program: Path | None,
    pyz: Path | None,
    token_ttl_seconds: float,
) -> None:
    """Write the DAG of a staging file: stage-in, compute, stage-out, clean-up on failure."""
    file = read_staging_file(path)
    adopted = {}
    if task is not None:
        file.transfer(STAGE_IN)
        task_status = None if no_check else _look(file, task)
        _report(task, task_status)
        adopted[STAGE_IN] = Adopted(task)
    made = make(
        file,
        server,
        program=program or find_program(),
        pyz=pyz,
        adopted=adopted,
        token_ttl_seconds=token_ttl_seconds,
        wants_check=not no_check,
    )
    verb = "made" if made.is_new else "kept"
    click.echo(f"workflow {made.workflow} {verb}; submit it with: condor_submit_dag {made.dag}")


@stage.command()
@_FILE
@click.argument("task", metavar="[TASK_ID]", required=False)
@click.option("--node", type=click.Choice(STAGES), default=STAGE_IN, show_default=True)
@click.option("--own", is_flag=True, help="It may be cancelled with the workflow.")
@click.option("--no-check", is_flag=True, help="Do not ask the transfer service about the task.")
@click.option(
    "--unused-key", metavar="KEY", help="Instead: nothing submitted under this key is at work."
)
def adopt(
    path: Path, task: str | None, node: str, own: bool, no_check: bool, unused_key: str | None
) -> None:
    """Let a transfer that runs or ran already be the workflow's stage-in (or stage-out).

    It is watched, and never cancelled unless --own says so. Watchers learn of it when they start.
    """
    if (task is None) == (unused_key is None):
        raise click.UsageError("give either TASK_ID or --unused-key KEY")
    file = read_staging_file(path)
    file.transfer(node)
    settings = read_settings(settings_path(path))
    if task is not None and not no_check:
        _report(task, _look(file, task))
    said = Adopted(task, own, unused_key)
    write_settings(settings_path(path), replace(settings, adopted={**settings.adopted, node: said}))
    what = f"task {task}" if task else f"no task under {unused_key}"
    click.echo(f"{settings.workflow}/{node} goes on with {what}.")


_node = click.option("--node", type=click.Choice(STAGES), default=STAGE_OUT, show_default=True)


@stage.command()
@_FILE
@_node
def check(path: Path, node: str) -> None:
    """Look how a transfer stands that nobody waits for; it is complete once this has seen its end.

    Exit code 0 when it is done, 75 when it goes on, 1 when it has failed, 78 when it has not begun.
    """
    file = read_staging_file(path)
    settings = read_settings(settings_path(path))
    status = watch(file, settings, node, is_asked=True)
    key = SubjobKey(settings.workflow, node)
    if status == LATER:
        click.echo(f"{key} goes on; look again later.")
        sys.exit(LATER)
    if status != DONE:
        raise HTLeaseError(f"{key} has failed; `htlease show {key}` says why")
    click.echo(f"{key} is complete.")


@stage.command()
@_FILE
@_node
@click.option("--reason", required=True, metavar="TEXT", help="Kept in the history.")
@pass_server
def waive(server: LeaseServer, path: Path, node: str, reason: str) -> None:
    """Call a transfer that nobody waits for complete, whatever becomes of it."""
    settings = read_settings(settings_path(path))
    settle_as(server, SubjobKey(settings.workflow, node), "complete", f"waived: {reason}")


def _look(file: StagingFile, task: str) -> TaskStatus:
    """Ask the service about a task; raises BadConfig for one that it does not know."""
    backend = open_backend(file)
    try:
        task_status = backend.poll(task)
    except TransferError as error:
        raise BadConfig(f"task {task} cannot be looked at: {error}; or give --no-check") from None
    finally:
        backend.close()
    if task_status.state is State.UNKNOWN:
        raise BadConfig(
            f"the transfer service knows no task {task}; nothing was changed. Check the ID, or"
            " give --no-check"
        )
    return task_status


def _report(task: str, task_status: TaskStatus | None) -> None:
    if task_status is not None:
        click.echo(f"task {task}: {task_status.state.value} {task_status.text}".rstrip())
