"""`htlease dag`: put htlease into a DAG, take it out again, look what that would change."""

from __future__ import annotations

import contextlib
import difflib
import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from htlease.config.plan_file import read_plan_file
from htlease_cli.dag.hold_release import hold, release
from htlease_cli.dag.instrument import Instrumented, Wanted, instrumented, read_dag_file, write
from htlease_cli.dag.rebuild import rebuild
from htlease_cli.dag.reconcile import reconcile
from htlease_cli.dag.status import status
from htlease_cli.operate.plans import plan_document
from htlease_cli.parameters import DURATION, WORKFLOW
from htlease_cli.pyz import find_pyz, kept_pyz
from htlease_cli.session import Session, pass_session
from htlease_cli.submit.submit_command import default_workflow
from htlease_dagman.dagfile.include_file import Names
from htlease_dagman.dagfile.include_line import without_line

_FILE = click.argument("file", type=click.Path(path_type=Path, readable=False))


@click.group()
def dag() -> None:
    """Make the nodes of a DAG survive retries, rescue and recovery."""


for command in (status, hold, release, reconcile, rebuild):
    dag.add_command(command)


def _reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what decides how a DAG is read and what is put into it."""
    for option in reversed(
        [
            click.option(
                "--workflow", type=WORKFLOW, help="Name of a new workflow [file name and time]."
            ),
            click.option(
                "--use-dag-dir",
                is_flag=True,
                help="For `condor_submit_dag -usedagdir`: paths start where FILE is, not here.",
            ),
            click.option(
                "--defer",
                "defer_seconds",
                type=DURATION,
                default="60s",
                show_default=True,
                help="When a script that has to wait looks again.",
            ),
            click.option(
                "--missing-ok",
                is_flag=True,
                help="Submit files may be made later; each then queues one job.",
            ),
            click.option(
                "--send-tokens",
                is_flag=True,
                help="Send tokens to all jobs, not only to those that run the wrapper.",
            ),
            click.option(
                "--no-wrapper",
                is_flag=True,
                help="Leave what the nodes run as it is: the jobs have hooks, or no lease.",
            ),
            click.option(
                "--pyz", type=click.Path(path_type=Path), help="The wrapper file to send along."
            ),
            click.option(
                "--plan",
                "plan_path",
                type=click.Path(path_type=Path, dir_okay=False),
                help="Phases of jobs that bring no plan (TOML or JSON).",
            ),
            click.option(
                "--script",
                "program",
                type=click.Path(path_type=Path),
                help="The htlease-dag that DAGMan is to run [the one beside this command].",
            ),
        ]
    ):
        command = option(command)
    return command


def _wanted(
    session: Session,
    file: Path,
    workflow: str | None,
    use_dag_dir: bool,
    defer_seconds: float,
    missing_ok: bool,
    send_tokens: bool,
    program: Path | None,
    no_wrapper: bool,
    pyz: Path | None,
    plan_path: Path | None,
) -> Wanted:
    plan_file = None if plan_path is None else read_plan_file(plan_path)
    return Wanted(
        file,
        session.connection().url,
        Path.cwd(),
        use_dag_dir,
        workflow or default_workflow(file.stem, time.time(), secrets.token_hex(8)),
        max(1, round(defer_seconds)),
        missing_ok,
        send_tokens,
        program,
        None if no_wrapper else find_pyz(pyz),
        plan_file.after_wall_time if plan_file else None,
    )


@dag.command()
@_FILE
@_reading_options
@pass_session
def check(session: Session, file: Path, **options: Any) -> None:
    """Print what `instrument` would change in FILE and beside it; change nothing."""
    result = instrumented(_wanted(session, file, **options))
    _say_left_alone(result)
    _print_changes(result)


@dag.command()
@_FILE
@_reading_options
@click.option(
    "--token-ttl",
    "token_ttl_seconds",
    type=DURATION,
    default="60d",
    show_default=True,
    help="How long the workflow's token is good for; longer than the whole DAG.",
)
@click.option("--check", "only_check", is_flag=True, help="As `htlease dag check`.")
@pass_session
def instrument(
    session: Session,
    file: Path,
    token_ttl_seconds: float,
    only_check: bool,
    **options: Any,
) -> None:
    """Add one INCLUDE line to FILE, whose nodes then keep their state on the lease server.

    Call it where you call condor_submit_dag, and again whenever FILE or a submit file of it has
    changed. The workflow stays the same; `uninstrument` gives back FILE as it was.
    """
    wanted = _wanted(session, file, **options)
    result = instrumented(wanted)
    _say_left_alone(result)
    if only_check:
        _print_changes(result)
        return
    fields: dict[str, Any] = {"labels": {"dag": file.name}, "structure": result.structure}
    if options["plan_path"] is not None:
        fields["plan"] = plan_document(read_plan_file(options["plan_path"]).plan)
    server = session.server()
    server.put_workflow(result.workflow, fields)
    token = server.mint_token(result.workflow, None, token_ttl_seconds)["token"]
    write(result.names.token, f"{token}\n".encode(), 0o600)
    if wanted.pyz is not None:
        kept_pyz(wanted.pyz, result.names.notes)
    changes = result.changes()
    for path, (_, content) in changes.items():
        write(path, content)
    made = ", ".join(path.name for path in changes) or "nothing"
    click.echo(f"{file} is workflow {result.workflow} (changed: {made}).")


@dag.command()
@_FILE
def uninstrument(file: Path) -> None:
    """Take the INCLUDE line out of FILE, and the generated files and tokens away.

    The settings file stays, for it has the workflow's name: instrumented again, FILE goes on from
    where it was. Delete it to begin anew.
    """
    names = Names(file.absolute())
    text = read_dag_file(file)
    bare = without_line(text)
    if bare != text:
        write(names.dag, bare)
    for path in (names.include, names.splices, names.token):
        path.unlink(missing_ok=True)
    for made in ("tokens", "wrapper"):
        shutil.rmtree(names.notes / made, ignore_errors=True)
    with contextlib.suppress(OSError):
        names.notes.rmdir()  # keeps what the scripts noted
    was = "as it was" if bare != text else "not instrumented"
    kept = f"; {names.settings.name} keeps the workflow's name" if names.settings.exists() else ""
    click.echo(f"{file} is {was}{kept}.")


def _say_left_alone(result: Instrumented) -> None:
    for sentence in result.left_alone:
        click.echo(f"htlease: {sentence}", err=True)


def _print_changes(result: Instrumented) -> None:
    changes = result.changes()
    if not changes:
        click.echo("Nothing would change.")
    for path, contents in changes.items():
        before, after = (text.decode("utf-8", "backslashreplace") for text in contents)
        name = os.path.relpath(path)
        lines = difflib.unified_diff(
            before.splitlines(), after.splitlines(), name, name, lineterm=""
        )
        for line in lines:
            click.echo(line)
