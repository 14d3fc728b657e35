"""The command `htlease logs`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import click

from htlease.client.client import LeaseServer
from htlease.condor import bindings_process as schedd
from htlease.condor.queued_ad import job_number
from htlease.condor.schedd import ScheddUnavailable
from htlease.errors import Refused
from htlease.rules.attempt import SubjobKey
from htlease_cli.logs.entries import Entry, from_event_log, from_history, in_order, line_of
from htlease_cli.logs.outputs import Output, event_log_of, outputs_of, tail_of
from htlease_cli.logs.workflow_jobs import Jobs
from htlease_cli.parameters import WORKFLOW
from htlease_cli.session import pass_server

_FOLLOW_SECONDS = 2.0
_OUTPUT_LINES = 10


@dataclass(frozen=True)
class _Node:
    """A subjob, its lines, and the files with its output."""

    name: str
    entries: list[Entry]
    outputs: list[Output]
    #: Why HTCondor's part is missing, if it is.
    gap: str | None = None


@click.command()
@click.argument("workflow", type=WORKFLOW)
@click.option("--node", metavar="NAME", help="Only this subjob.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="K", help="Only this attempt.")
@click.option(
    "--tail",
    type=click.IntRange(min=0),
    metavar="LINES",
    help=f"Only the last lines of the log, and of each output [all, {_OUTPUT_LINES}].",
)
@click.option("--full", is_flag=True, help="Whole outputs instead of their last lines.")
@click.option("--follow", is_flag=True, help="Go on printing what is added, until interrupted.")
@click.option("--schedd", "schedd_name", metavar="NAME", help="The schedd that had the jobs.")
@pass_server
def logs(
    server: LeaseServer,
    workflow: str,
    node: str | None,
    attempt: int | None,
    tail: int | None,
    full: bool,
    follow: bool,
    schedd_name: str | None,
) -> None:
    """Show the logs of a WORKFLOW together: server, HTCondor's event logs, payloads' output.

    Outputs of earlier attempts are there where each start has a file of its own:
    output = out.$$([NumJobStarts]).
    """
    jobs = Jobs(workflow, schedd_name)
    nodes = list(_read(server, jobs, node))
    width = max((len(found.name) for found in nodes), default=0)
    shown = _print_entries(nodes, attempt, width, set(), tail)
    lines = None if full else _OUTPUT_LINES if tail is None else tail
    for found in nodes:
        if found.gap:
            click.echo(f"{found.name}: {found.gap}")
        _print_outputs(found, attempt, lines)
    while follow:
        time.sleep(_FOLLOW_SECONDS)
        nodes = list(_read(server, jobs, node))
        shown = _print_entries(nodes, attempt, width, shown)


def _read(server: LeaseServer, jobs: Jobs, only: str | None) -> Iterator[_Node]:
    workflow = jobs.workflow
    names = [summary["subjob"] for summary in server.workflow(workflow)["subjobs"]]
    if only is not None and only not in names:
        raise Refused("not-found", f"{workflow} has no subjob {only}; `htlease list {workflow}`")
    keys = [SubjobKey(workflow, name) for name in (names if only is None else [only])]
    submissions = {
        key: [
            str(one["global_job_id"])
            for one in server.subjob(key)["submissions"]
            if one["global_job_id"]
        ]
        for key in keys
    }
    gap = None
    try:
        jobs.read(job for of_one in submissions.values() for job in of_one)
    except ScheddUnavailable as error:
        gap = str(error)
    for key in keys:
        entries = from_history(key.subjob, server.history(key)["events"])
        outputs: list[Output] = []
        gaps = [gap] if gap else []
        for ad in jobs.of(key, submissions[key]):
            job = job_number(ad)
            outputs += outputs_of(ad, int(ad.get("NumJobStarts") or 0))
            log = event_log_of(ad)
            if log is None:
                gaps.append(
                    f"job {job} has no event log; `log = FILE` in the submit file makes one"
                )
                continue
            try:
                entries += from_event_log(key.subjob, schedd.read_event_log(log, job))
            except ScheddUnavailable as error:
                gaps.append(str(error))
            except OSError as error:
                gaps.append(f"{log} cannot be read: {error.strerror or error}")
        yield _Node(key.subjob, entries, outputs, "; ".join(gaps) or None)


def _print_entries(
    nodes: list[_Node],
    attempt: int | None,
    width: int,
    shown: set[Entry],
    last: int | None = None,
) -> set[Entry]:
    """Print the lines that were not shown yet, only so many of them if told; return all."""
    entries = in_order((entry for node in nodes for entry in node.entries), None, attempt)
    for entry in entries if last is None else entries[max(0, len(entries) - last) :]:
        if entry not in shown:
            click.echo(line_of(entry, width))
    return shown | set(entries)


def _print_outputs(node: _Node, attempt: int | None, lines: int | None) -> None:
    for output in node.outputs:
        if attempt is not None and output.start not in (None, attempt):
            continue
        whose = "the last start" if output.start is None else f"start {output.start}"
        found = tail_of(output.path, lines)
        if found is None:
            click.echo(f"\n== {node.name}, {output.stream} of {whose}: {output.path} is not there")
        elif found:
            click.echo(f"\n== {node.name}, {output.stream} of {whose}: {output.path}")
            for line in found:
                click.echo(line)
