"""The command `htlease logs`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from htlease.attempt import SubjobKey
from htlease.errors import Refused
from htlease_admin import schedd
from htlease_admin.lease_server import LeaseServer
from htlease_admin.logs.entries import Entry, from_event_log, from_history, in_order, line_of
from htlease_admin.logs.outputs import Output, outputs_of, tail_of
from htlease_admin.parameters import WORKFLOW
from htlease_admin.schedd import Plain, ScheddUnavailable
from htlease_admin.session import pass_server

_ATTRIBUTES = ("GlobalJobId", "ClusterId", "ProcId", "Iwd", "Out", "Err", "UserLog", "NumJobStarts")
_FOLLOW_SECONDS = 2.0


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
@click.option("--tail", type=click.IntRange(min=0), default=10, show_default=True, metavar="LINES")
@click.option("--full", is_flag=True, help="Whole outputs instead of their last lines.")
@click.option("--follow", is_flag=True, help="Go on printing what is added, until interrupted.")
@click.option("--schedd", "schedd_name", metavar="NAME", help="The schedd that had the jobs.")
@pass_server
def logs(
    server: LeaseServer,
    workflow: str,
    node: str | None,
    attempt: int | None,
    tail: int,
    full: bool,
    follow: bool,
    schedd_name: str | None,
) -> None:
    """Show the logs of a WORKFLOW together: server, HTCondor's event logs, payloads' output.

    Outputs of earlier attempts are there where each start has a file of its own:
    output = out.$$([NumJobStarts]).
    """
    nodes = list(_read(server, workflow, node, schedd_name))
    width = max((len(found.name) for found in nodes), default=0)
    shown = _print_entries(nodes, attempt, width, set())
    for found in nodes:
        if found.gap:
            click.echo(f"{found.name}: {found.gap}")
        _print_outputs(found, attempt, None if full else tail)
    while follow:
        time.sleep(_FOLLOW_SECONDS)
        nodes = list(_read(server, workflow, node, schedd_name))
        shown = _print_entries(nodes, attempt, width, shown)


def _read(
    server: LeaseServer, workflow: str, only: str | None, schedd_name: str | None
) -> Iterator[_Node]:
    names = [summary["subjob"] for summary in server.workflow(workflow)["subjobs"]]
    if only is not None and only not in names:
        raise Refused("not-found", f"{workflow} has no subjob {only}; `htlease list {workflow}`")
    for name in names if only is None else [only]:
        key = SubjobKey(workflow, name)
        entries = from_history(name, server.history(key)["events"])
        submissions = [
            str(submission["global_job_id"])
            for submission in server.subjob(key)["submissions"]
            if submission["global_job_id"]
        ]
        try:
            ads = _ads(submissions, schedd_name)
        except ScheddUnavailable as error:
            yield _Node(name, entries, [], str(error))
            continue
        outputs: list[Output] = []
        gaps = []
        for ad in ads:
            job = f"{ad['ClusterId']}.{ad['ProcId']}"
            outputs += outputs_of(ad, int(ad.get("NumJobStarts") or 0))
            if "UserLog" not in ad:
                gaps.append(
                    f"job {job} has no event log; `log = FILE` in the submit file makes one"
                )
                continue
            log = Path(str(ad["Iwd"])) / str(ad["UserLog"])
            try:
                entries += from_event_log(name, schedd.read_event_log(log, job))
            except OSError as error:
                gaps.append(f"{log} cannot be read: {error.strerror or error}")
        yield _Node(name, entries, outputs, "; ".join(gaps) or None)


def _ads(global_job_ids: list[str], schedd_name: str | None) -> list[dict[str, Plain]]:
    """Return the ads of submissions, oldest first, from the queue and else the history."""
    found: dict[str, dict[str, Plain]] = {}
    for global_job_id in global_job_ids:
        cluster, _, proc = global_job_id.rpartition("#")[0].rpartition("#")[2].partition(".")
        if not (cluster.isdigit() and proc.isdigit()):
            continue
        constraint = f"ClusterId == {cluster} && ProcId == {proc}"
        ads = schedd.read_jobs(constraint, _ATTRIBUTES, schedd_name) or schedd.read_history(
            constraint, _ATTRIBUTES, None, 1, schedd_name
        )
        for ad in ads:
            if ad.get("GlobalJobId") == global_job_id:  # numbers of jobs come round again
                found[global_job_id] = ad
    return list(found.values())


def _print_entries(
    nodes: list[_Node], attempt: int | None, width: int, shown: set[Entry]
) -> set[Entry]:
    entries = in_order((entry for node in nodes for entry in node.entries), None, attempt)
    for entry in entries:
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
