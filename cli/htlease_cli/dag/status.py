"""`htlease dag status`: how far DAGs are, and why what is not done is not."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from htlease.client.client import LeaseServer, as_json
from htlease.errors import BadConfig
from htlease.rules.attempt import check_name
from htlease_cli.dag.instrument import workflow_of
from htlease_cli.dag.nodes import COLUMNS, row_of
from htlease_cli.dag.overview import Looking, Overview
from htlease_cli.dag.progress import LEGEND, SIGNS, Standing, parts_of_bar
from htlease_cli.parameters import json_option
from htlease_cli.session import pass_server
from htlease_cli.tables import Table, print_table
from htlease_dagman.dagfile.include_file import Names

FOLLOW_SECONDS = 2.0
UNDER_WAY, NEEDS_A_PERSON = 3, 4
_COLUMNS_ELSEWHERE = 80
_ROWS_MAX = 40
_CLEAR = "\x1b[H\x1b[2J"


@click.command()
@click.argument("dags", metavar="DAG_OR_WORKFLOW...", nargs=-1, required=True)
@click.option("--follow", is_flag=True, help="Look again and again until all is done or stuck.")
@click.option("--all", "wants_all", is_flag=True, help="List the nodes that are done, too.")
@click.option("--schedd", "schedd_name", metavar="NAME", help="The schedd that has the jobs.")
@json_option
@pass_server
def status(
    server: LeaseServer,
    dags: Sequence[str],
    follow: bool,
    wants_all: bool,
    schedd_name: str | None,
    wants_json: bool,
) -> None:
    """Show how far DAGs are: nodes, phases, attempts, and why the others wait.

    Give the file of an instrumented DAG, or the name of a workflow. The lease server is enough;
    on the access point the queue is looked at as well.

    Exits with 0 when everything is complete, 3 while work is under way, 4 when something failed or
    is held and waits for a person.
    """
    workflows = [workflow_named(name) for name in dags]
    before = ""
    while True:
        looking = Looking(server, schedd_name)
        found = [looking.look(workflow) for workflow in workflows]
        code = exit_code_of([one for top in found for one in top.all()])
        is_live = follow and sys.stdout.isatty() and not wants_json
        if wants_json:
            text = as_json({"dags": [one.document() for one in found]})
        else:
            text = "\n".join(_lines(found))
        if is_live:
            click.echo(_CLEAR, nl=False)
        if is_live or text != before or not follow:
            click.echo(text)
            if not wants_json and (is_live or not follow):
                _print_tables(found, wants_all)
        before = text
        if not follow or code != UNDER_WAY:
            break
        time.sleep(FOLLOW_SECONDS)
    sys.exit(code)


def workflow_named(name: str) -> str:
    """Return the workflow of a DAG file, or the name itself; raises BadConfig, InvalidField."""
    path = Path(name)
    if path.is_file():
        workflow = workflow_of(Names(path.absolute()))
        if workflow is None:
            raise BadConfig(f"{name} is not instrumented; `htlease dag instrument {name}` does it")
        return workflow
    if "/" in name or name.endswith(".dag"):
        raise BadConfig(f"{name}: there is no such DAG file")
    return check_name("workflow", name)


def exit_code_of(found: Sequence[Overview]) -> int:
    """Return what a script is told."""
    standings = {standing for one in found for standing in one.counts}
    is_moving = standings & {Standing.RUNNING, Standing.TRANSFERRING}
    if not standings - {Standing.DONE}:
        return 0
    # What has failed a DAGMan that runs may try again; it ends by itself once nothing is left.
    runs = any(one.dagman is not None and one.dagman.runs for one in found)
    stuck = {Standing.HELD} if runs else {Standing.HELD, Standing.FAILED}
    if standings & stuck and not is_moving:
        return NEEDS_A_PERSON
    has_left = all(one.dagman is not None and not one.dagman.is_in_queue for one in found)
    return NEEDS_A_PERSON if has_left and not is_moving else UNDER_WAY


def _lines(found: Sequence[Overview]) -> Iterator[str]:
    rows = [(depth, one) for top in found for depth, one in _indented(top, 0)]
    names = ["  " * depth + _label(one) for depth, one in rows]
    dones = [f"{one.counts[Standing.DONE]}/{one.counts.total()}" for _, one in rows]
    states = [one.state for _, one in rows]
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _COLUMNS_ELSEWHERE
    name_width = min(max(len("DAG"), *map(len, names)), columns // 3)
    state_width = max(len("IS"), *map(len, states))
    done_width = max(len("DONE"), *map(len, dones))
    head = f"{'DAG':{name_width}}  {'IS':{state_width}}  {'DONE':>{done_width}}"
    yield click.style(head, bold=True)
    for (_, one), name, state, done in zip(rows, names, states, dones, strict=True):
        if len(name) > name_width:
            name = name[: name_width - 1] + "~"
        start = f"{name:{name_width}}  {state:{state_width}}  {done:>{done_width}}  "
        yield f"{start}[{_bar(one, columns - len(start))}]"
    yield ""
    yield LEGEND


def _indented(one: Overview, depth: int) -> Iterator[tuple[int, Overview]]:
    yield depth, one
    for sub_dag in one.sub_dags:
        yield from _indented(sub_dag, depth + 1)


def _label(one: Overview) -> str:
    return one.name if one.node is None else f"{one.node}: {one.name}"


def _bar(one: Overview, columns: int) -> str:
    return "".join(
        click.style(SIGNS[standing][0] * length, fg=SIGNS[standing][1])
        for standing, length in parts_of_bar(one.counts, columns)
    )


def _print_tables(found: Sequence[Overview], wants_all: bool) -> None:
    for one in (below for top in found for below in top.all()):
        click.echo(f"\n{_label(one)} is workflow {one.workflow}: {one.told()}")
        if one.dagman is not None:
            click.echo(f"DAGMan's job {one.dagman.job} {one.dagman.text}")
            if not one.dagman.is_in_queue and one.counts[Standing.DONE] < one.counts.total():
                click.echo("Submit the DAG again: it continues from here.")
        hidden = () if wants_all else (Standing.DONE, Standing.NOT_READY)
        shown = [node for node in one.nodes if node.standing not in hidden]
        rows = [row_of(node) for node in shown]
        if rows:
            most = len(rows) if wants_all else _ROWS_MAX
            print_table(_without_empty_columns(Table(COLUMNS, rows[:most])))
            if len(rows) > most:
                click.echo(f"and {len(rows) - most} more; --all lists them")


def _without_empty_columns(table: Table) -> Table:
    """Leave out the columns in which nobody has anything, as 80 columns are few."""
    kept = [i for i in range(len(table.columns)) if any(row[i] for row in table.rows)]
    return Table(
        tuple(table.columns[i] for i in kept),
        [tuple(row[i] for i in kept) for row in table.rows],
    )
