"""`htlease dag reconcile`: write down what the queue and the history say and nobody reported.

DAGMan calls no script when it is removed, and none of ours runs when a job is held past it. Only
records count: a job that is in neither queue nor history says nothing, least of all where the
schedd has lost its job queue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from htlease.client.client import LeaseServer
from htlease.condor.bindings_process import queue_birthdate, read_history, read_jobs
from htlease.condor.hold_codes import held_by, removed_by
from htlease.condor.queued_ad import HELD, REMOVED, integer
from htlease.condor.schedd import Plain
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey
from htlease.rules.end_proof import of_queue
from htlease_agent.reconcile.evidence import AskedEvidence
from htlease_agent.reconcile.job_end import ATTRIBUTES, End, end_of
from htlease_cli.dag.status import workflow_named
from htlease_cli.session import pass_server
from htlease_cli.tables import Table, print_table

_ATTRIBUTES = tuple(
    dict.fromkeys((*ATTRIBUTES, "HoldReason", "HoldReasonCode", "HoldReasonSubCode"))
)
#: In these somebody may still believe to have the lease.
_MAY_HOLD = ("active", "recalled", "lapsed")


@click.command()
@click.argument("dag", metavar="DAG_OR_WORKFLOW")
@click.option("--schedd", "schedd_name", metavar="NAME", help="The schedd that had the jobs.")
@pass_server
def reconcile(server: LeaseServer, dag: str, schedd_name: str | None) -> None:
    """Record holds, releases and removals of a DAG's jobs that nobody has reported.

    Of each unfinished node the newest job is looked up, else the DAGMan that announced it. The
    lease of a job that has left the queue ends if its event log or its startd proves that nothing
    of it runs; no node is closed.
    """
    workflow = workflow_named(dag)
    evidence = AskedEvidence(schedd_name)
    rows = []
    for summary in server.workflow(workflow)["subjobs"]:
        if summary["outcome"] is not None:
            continue
        key = SubjobKey(workflow, summary["subjob"])
        document = server.subjob(key)
        for job in _newest(document):
            ad = _ad(job, schedd_name)
            if not ad and document["status"] in _MAY_HOLD:
                found = of_queue(job, queue_birthdate(schedd_name))
                if not found.is_proof:
                    rows.append((key.subjob, "unknown", "", f"{found.why}; its lease runs out"))
            observed = observation(job, document, ad)
            if observed is not None:
                server.command(key, observed)
                rows.append((key.subjob, observed.what, observed.by or "", observed.reason or ""))
            end = end_to_report(key, document, ad)
            if end is not None:
                found = evidence.finding(end)
                server.command(key, end.ended() if found.is_proof else end.remark(found.why))
                proof = found.why if found.is_proof else f"its lease has to run out: {found.why}"
                rows.append((key.subjob, "ended", "", f"{end.reason}; {proof}"))
    if rows:
        print_table(Table(("NODE", "IS", "BY", "REASON"), rows))
    else:
        click.echo("Nothing to record: the server knows what queue and history say.")


def _newest(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the newest job of a node, or its DAGMan when it has none yet."""
    for submission in reversed(document["submissions"]):
        name = submission["global_job_id"]
        if name:
            dag, slash, _ = name.rpartition("/")
            yield dag if slash else name
            return


def _ad(global_job_id: str, schedd_name: str | None) -> Mapping[str, Plain]:
    """Return what is recorded of a job; raises ScheddUnavailable."""
    number = global_job_id.rpartition("#")[0].rpartition("#")[2]
    cluster, _, proc = number.partition(".")
    if not (cluster.isdigit() and proc.isdigit()):
        return {}
    constraint = f"ClusterId == {cluster} && ProcId == {proc}"
    ads = read_jobs(constraint, _ATTRIBUTES, schedd_name) or read_history(
        constraint, _ATTRIBUTES, None, 1, schedd_name
    )
    return next((ad for ad in ads if ad.get("GlobalJobId") == global_job_id), {})


def observation(
    job: str, document: Mapping[str, Any], ad: Mapping[str, Plain]
) -> m.Observed | None:
    """Return what is to be recorded of a job; None when nothing is known, or nothing new; pure."""
    hold = document["job_hold"]
    status = ad.get("JobStatus")
    if status == REMOVED:
        if job in document["removed_jobs"]:
            return None
        reason = str(ad.get("RemoveReason", ""))
        return m.Observed(job, "removed", removed_by(reason), reason or None)
    if status == HELD:
        code, subcode = integer(ad, "HoldReasonCode"), integer(ad, "HoldReasonSubCode")
        reason = str(ad.get("HoldReason", ""))
        held = m.Observed(job, "held", held_by(code, subcode), reason or None, code, subcode)
        known = m.JobHeld(job, held.by, held.reason, code, subcode)
        return None if hold is not None and m.JobHeld(**hold) == known else held
    if status is not None and hold is not None and hold["global_job_id"] == job:
        return m.Observed(job, "released")
    return None


def end_to_report(
    key: SubjobKey, document: Mapping[str, Any], ad: Mapping[str, Plain]
) -> End | None:
    """Return the end of a job whose attempt may still have the lease; None without either; pure."""
    end = end_of({**ad, "HTLeaseKey": str(key)})
    if end is None or document["status"] not in _MAY_HOLD:
        return None
    if not str(document["attempts"][-1]["attempt_id"]).startswith(f"{end.global_job_id}@"):
        return None
    return end
