"""The commands that only look: list, show, history, explain, find."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import click

from htlease.client.client import Document, LeaseServer, as_json
from htlease.condor.bindings_process import read_history, read_jobs
from htlease.condor.schedd import ScheddUnavailable
from htlease.errors import BadConfig, Refused
from htlease.rules.attempt import SubjobKey, check_name
from htlease.rules.rollup import COMMITTING
from htlease_cli.parameters import KEY, WORKFLOW, json_option
from htlease_cli.session import pass_server
from htlease_cli.show.attempts import ending_text
from htlease_cli.show.explain import explain
from htlease_cli.show.timeline import print_timeline
from htlease_cli.show.unheard import seen_of, with_what_is_seen
from htlease_cli.show.waiting import waits_for, workflow_waits_for
from htlease_cli.submit.transaction import is_of_refused_submissions
from htlease_cli.tables import Table, duration_text, moment_text, print_table

#: How much of the details is shown.
_DETAILS_LINES_MAX, _DETAILS_COLUMNS_MAX = 10, 68
#: Of one cluster in the history.
_JOBS_MAX = 1_000
_JOB_ID = re.compile(r"\d+(\.\d+)?")
_SUBJOB_COLUMNS = ("SUBJOB", "STATUS", "PHASE", "ATTEMPT", "FENCE", "HOST", "LEASE ENDS", "UPDATED")


@click.command("list")
@click.argument("workflow", required=False, type=WORKFLOW)
@click.option(
    "--all", "wants_all", is_flag=True, help="Also workflows of which nothing was submitted."
)
@json_option
@pass_server
def list_command(
    server: LeaseServer, workflow: str | None, wants_all: bool, wants_json: bool
) -> None:
    """List the workflows, or the subjobs of one WORKFLOW."""
    if workflow is None:
        found = server.workflows()
        _print(found, wants_json, lambda _: _print_workflows(found["workflows"], wants_all))
    else:
        found = server.workflow(workflow)
        _print(found, wants_json, _print_subjobs_of)


@click.command()
@click.argument("name", metavar="WORKFLOW[/SUBJOB]")
@json_option
@pass_server
def show(server: LeaseServer, name: str, wants_json: bool) -> None:
    """Show a subjob (state, holder, phases, attempts) or a workflow."""
    if "/" in name:
        key = SubjobKey.parse(name)
        with with_what_is_seen(key):
            found = server.subjob(key)
        _print(found, wants_json, _print_subjob)
    else:
        _print(server.workflow(check_name("workflow", name)), wants_json, _print_workflow)


@click.command()
@click.argument("key", type=KEY)
@json_option
@pass_server
def history(server: LeaseServer, key: SubjobKey, wants_json: bool) -> None:
    """Tell what happened to a subjob, oldest first."""
    with with_what_is_seen(key):
        told = server.history(key)
    _print(told, wants_json, lambda _: print_timeline(told["events"]))


@click.command("explain")
@click.argument("key", type=KEY)
@click.option(
    "--attempt", metavar="N", help="Only this attempt: its number, its ID, or fence:NUMBER."
)
@json_option
@pass_server
def explain_command(
    server: LeaseServer, key: SubjobKey, attempt: str | None, wants_json: bool
) -> None:
    """Say why attempts got the lease, waited for it or lost it."""
    with with_what_is_seen(key):
        events = server.history(key)["events"]
    stories = explain(events, attempt)
    if not stories:
        raise Refused(
            "not-found", f"{key} has no attempt {attempt}; `htlease show {key}` lists its attempts"
        )
    told = ["\n".join(story.sentences) for story in stories]
    waiting = waits_for(server.subjob(key)) if attempt is None else None
    if waiting is not None:
        told.append(f"Now it waits for this: {waiting}.")
    _print(
        {
            "subjob": str(key),
            "stories": [dataclasses.asdict(story) for story in stories],
            "waits_for": waiting,
        },
        wants_json,
        lambda _: click.echo("\n\n".join(told)),
    )


@click.command()
@click.argument("identifier", metavar="ID")
@click.option("--schedd", "schedd_name", metavar="NAME", help="The schedd that had job 47.0.")
@json_option
@pass_server
def find(server: LeaseServer, identifier: str, schedd_name: str | None, wants_json: bool) -> None:
    """Find subjobs by GlobalJobId, attempt ID, any linked ID, or subjob name.

    47.0, or 47 for all of a cluster, is looked up in the schedd of this machine first, since every
    schedd counts its own.
    """
    found = server.find(identifier)
    gap = ""
    if not found["subjobs"] and _JOB_ID.fullmatch(identifier):
        try:
            found = _found_by_jobs(server, identifier, schedd_name)
            seen = None if found["subjobs"] else seen_of(_constraint(identifier), schedd_name)
            gap = f"; {seen}" if seen else ""
        except (ScheddUnavailable, BadConfig) as error:
            gap = f" ({error}; {identifier} means something to its own schedd alone)"
    if not found["subjobs"] and not wants_json:
        raise Refused(
            "not-found", f"no subjob is known by {identifier!r}{gap}; `htlease list` has all"
        )
    _print(found, wants_json, lambda _: _print_subjobs(found["subjobs"], with_workflow=True))


def _found_by_jobs(server: LeaseServer, job: str, schedd_name: str | None) -> Document:
    """Return the subjobs that jobs of a schedd have worked on; raises ScheddUnavailable."""
    constraint = _constraint(job)
    names = ("GlobalJobId",)
    ads = read_jobs(constraint, names, schedd_name)
    ads += read_history(constraint, names, None, _JOBS_MAX, schedd_name)
    found = {}
    for ad in ads:
        for subjob in server.find(str(ad.get("GlobalJobId")))["subjobs"]:
            found[subjob["workflow"], subjob["subjob"]] = subjob
    return {"subjobs": list(found.values())}


def _constraint(job: str) -> str:
    cluster, dot, proc = job.partition(".")
    return f"ClusterId == {cluster}" + (f" && ProcId == {proc}" if dot else "")


def _print(
    document: Document, wants_json: bool, print_for_people: Callable[[Document], None]
) -> None:
    if wants_json:
        click.echo(as_json(document))
    else:
        print_for_people(document)


def _print_workflows(workflows: list[Document], wants_all: bool) -> None:
    refused = [one for one in workflows if is_of_refused_submissions(one)]
    rows = [
        (
            workflow["workflow"],
            "refused" if workflow in refused else workflow["state"],
            _counts_text(workflow),
            _labels_text(workflow["labels"]) + (" template" if workflow["template"] else ""),
            moment_text(workflow["created_at"]),
        )
        for workflow in workflows
        if wants_all or workflow not in refused
    ]
    print_table(Table(("WORKFLOW", "STATE", "SUBJOBS", "LABELS", "CREATED (UTC)"), rows))
    if any(one["state"] == COMMITTING for one in workflows):
        click.echo(
            f"\n{COMMITTING}: the jobs have ended, and nobody has reported that their output is "
            "back; `htlease show WORKFLOW` says what to run."
        )
    if refused and not wants_all:
        click.echo(
            f"\n{len(refused)} not shown, of which nothing was submitted; `htlease list --all` "
            "shows why."
        )


def _print_workflow(document: Document) -> None:
    click.echo(f"workflow  {document['workflow']}")
    click.echo(f"state     {document['state']}  ({_counts_text(document)})")
    if document["labels"]:
        click.echo(f"labels    {_labels_text(document['labels'])}")
    if document["template"]:
        click.echo("template  yes: it may only be copied")
    click.echo(f"created   {moment_text(document['created_at'])} UTC\n")
    _print_subjobs_of(document)


def _print_subjobs_of(workflow: Document) -> None:
    _print_subjobs(workflow["subjobs"])
    waiting = workflow_waits_for(workflow["workflow"], workflow["subjobs"])
    if waiting is not None:
        click.echo(f"\n{waiting}")


def _print_subjobs(subjobs: list[Document], with_workflow: bool = False) -> None:
    rows = [
        (
            f"{subjob['workflow']}/{subjob['subjob']}" if with_workflow else subjob["subjob"],
            subjob["status"],
            subjob.get("phase") or "",
            str(subjob.get("attempt_number") or ""),
            str(subjob.get("fence") or ""),
            subjob.get("host") or "",
            _lease_end_text(subjob),
            moment_text(subjob.get("updated_at")),
        )
        for subjob in subjobs
    ]
    print_table(Table(_SUBJOB_COLUMNS, rows))


def _print_subjob(subjob: Document) -> None:
    facts = [
        ("subjob", f"{subjob['workflow']}/{subjob['subjob']}"),
        ("status", subjob["status"]),
        ("holder", _holder_text(subjob)),
        ("lease ends", _lease_end_text(subjob)),
        ("recalled by", subjob.get("recalled_by") or ""),
        ("phase", subjob.get("phase") or ""),
        ("details", _details_text(subjob)),
        ("exit", _exit_text(subjob)),
        ("waits for", waits_for(subjob) or ""),
    ]
    for name, value in facts:
        if value:
            click.echo(f"{name:<12}{value}")
    if subjob.get("details"):
        for line in _shown_details(subjob["details"]):
            click.echo(f"{'':<12}{line}")
    click.echo()
    print_table(_phase_table(subjob))
    if subjob["attempts"]:
        click.echo()
        print_table(_attempt_table(subjob))
    if subjob["submissions"]:
        click.echo()
        print_table(_submission_table(subjob))


def _phase_table(subjob: Document) -> Table:
    rows = []
    for phase in subjob["phases"]:
        done = f"fence {phase['completed_fence']}" if phase.get("completed_fence") else ""
        failed = f"fence {phase['failed_fence']}" if phase.get("failed_fence") else ""
        rows.append(
            (
                phase["name"],
                phase["restart"] + (", exclusive" if phase["exclusive"] else ""),
                str(phase["entries"]),
                moment_text(phase.get("entered_at")),
                done,
                f"{failed}: {phase['reason']}" if failed and phase.get("reason") else failed,
                "yes" if phase["run"] else "no",
            )
        )
    columns = ("PHASE", "RESTART", "ENTRIES", "ENTERED", "COMPLETED", "FAILED", "WOULD RUN AGAIN")
    return Table(columns, rows)


def _attempt_table(subjob: Document) -> Table:
    rows = [
        (
            str(attempt["attempt_number"]) if attempt["kind"] == "job" else attempt["kind"],
            str(attempt["fence"]),
            attempt["attempt_id"],
            attempt.get("host") or "",
            attempt["why"],
            moment_text(attempt["granted_at"]),
            attempt.get("end") or "",
            moment_text(attempt.get("ended_at")),
        )
        for attempt in subjob["attempts"]
    ]
    columns = ("ATTEMPT", "FENCE", "ATTEMPT ID", "HOST", "BECAUSE", "GRANTED", "END", "ENDED")
    return Table(columns, rows)


def _submission_table(subjob: Document) -> Table:
    rows = [
        (
            str(submission["epoch"]),
            submission.get("global_job_id") or "still to come",
            "" if submission.get("retry") is None else str(submission["retry"]),
            ", ".join(f"{name}={value}" for name, value in (submission.get("links") or {}).items()),
            moment_text(submission["at"]),
        )
        for submission in subjob["submissions"]
    ]
    return Table(("EPOCH", "SUBMISSION", "RETRY", "OTHER IDS", "SEEN"), rows)


def _holder_text(subjob: Document) -> str:
    if subjob["status"] not in ("active", "recalled", "lapsed"):
        return ""
    where = f" on {subjob['host']}" if subjob.get("host") else ""
    return (
        f"attempt {subjob['attempt_number']}{where}, fence {subjob['fence']} "
        f"({subjob.get('attempt_id')})"
    )


def _lease_end_text(subjob: Document) -> str:
    if subjob["status"] == "lapsed":
        return "has run out"
    remaining = subjob.get("expires_in_seconds")
    return "" if remaining is None else f"in {duration_text(max(0.0, remaining))}"


def _details_text(subjob: Document) -> str:
    details = subjob.get("details")
    if details is None:
        return ""
    return f"{len(details.encode())} bytes, saved in phase {subjob.get('details_phase') or '?'}"


def _shown_details(details: str) -> list[str]:
    """Return what a payload saved, as far as it fits; unprintable characters are escaped."""
    lines = [
        "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
        for line in details.splitlines()
    ]
    if len(lines) > _DETAILS_LINES_MAX or any(len(line) > _DETAILS_COLUMNS_MAX for line in lines):
        lines = [line[:_DETAILS_COLUMNS_MAX] for line in lines[:_DETAILS_LINES_MAX]]
        lines.append("... (--json has it all)")
    return lines


def _exit_text(subjob: Document) -> str:
    if subjob.get("exit_code") is None and subjob.get("exit_signal") is None:
        return ""
    return ending_text(subjob)


def _counts_text(workflow: Document) -> str:
    counts = workflow["counts"]
    texts = [f"{number} {status}" for status, number in counts.items() if number]
    if workflow.get("lapsed_counted_at", "") is None:
        texts.append("lapsed ones not counted yet")
    return ", ".join(texts)


def _labels_text(labels: dict[str, str] | None) -> str:
    return " ".join(f"{name}={value}" for name, value in (labels or {}).items())
