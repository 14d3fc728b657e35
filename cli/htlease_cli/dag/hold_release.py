"""`htlease dag hold` and `release`: stand a whole DAG still and let it go on, user's holds kept.

Our holds bear a code of their own, by which a release finds them and touches no other.
"""

from __future__ import annotations

import click

from htlease.client.client import LeaseServer
from htlease.condor import bindings_process as schedd
from htlease.condor.hold_codes import OUR_SUBCODE
from htlease.errors import Refused
from htlease_cli.dag.overview import dagman_of
from htlease_cli.dag.queue import Job, dagman_by_jobs, jobs_below, report
from htlease_cli.dag.status import workflow_named
from htlease_cli.session import pass_server

#: HoldReasonCode of a hold that somebody asked for.
_USER_REQUEST = 1
_DAG = click.argument("dag", metavar="DAG_OR_WORKFLOW")
_SCHEDD = click.option("--schedd", "schedd_name", metavar="NAME", help="The schedd with the jobs.")


@click.command()
@_DAG
@click.option("--reason", default="held by htlease dag hold", metavar="TEXT", show_default=True)
@_SCHEDD
@pass_server
def hold(server: LeaseServer, dag: str, reason: str, schedd_name: str | None) -> None:
    """Hold DAGMan and all jobs of a DAG and of its sub-DAGs.

    Nothing is lost: the jobs keep their IDs, and after `release` each goes on in its own phase.
    Jobs that are held already stay as they are.
    """
    jobs = _jobs(server, dag, schedd_name)
    # DAGMan first, so that it submits nothing meanwhile; then what it has submitted until then.
    ours = [job for job in jobs if job.is_dagman and not job.is_held]
    schedd.hold([job.id for job in ours], reason, OUR_SUBCODE, schedd_name)
    nodes = [job for job in _jobs(server, dag, schedd_name) if not job.is_dagman]
    wanted = [job for job in nodes if not job.is_held]
    schedd.hold([job.id for job in wanted], reason, OUR_SUBCODE, schedd_name)
    for _ in report(
        server, wanted, "held", by="htlease", reason=reason, code=1, subcode=OUR_SUBCODE
    ):
        pass
    others = len([job for job in nodes if job.is_held])
    kept = f"; {others} were held before and stay so" if others else ""
    click.echo(f"Held: {_told(ours, wanted)}{kept}.")


@click.command()
@_DAG
@click.option("--reason", default="released by htlease dag release", metavar="TEXT")
@_SCHEDD
@pass_server
def release(server: LeaseServer, dag: str, reason: str, schedd_name: str | None) -> None:
    """Release what `htlease dag hold` has held, and nothing else."""
    jobs = [job for job in _jobs(server, dag, schedd_name) if job.is_held]
    ours = [job for job in jobs if _is_ours(job)]
    nodes = [job for job in ours if not job.is_dagman]
    dagmen = [job for job in ours if job.is_dagman]
    schedd.release([job.id for job in [*nodes, *dagmen]], reason, schedd_name)
    for _ in report(server, nodes, "released", by="htlease", reason=reason):
        pass
    others = len(jobs) - len(ours)
    kept = f"; {others} others stay held, by other hands" if others else ""
    click.echo(f"Released: {_told(dagmen, nodes)}{kept}.")


def _jobs(server: LeaseServer, dag: str, schedd_name: str | None) -> list[Job]:
    workflow = workflow_named(dag)
    dagman = dagman_of(server, workflow)
    if dagman is not None:
        cluster = int(dagman.split("#")[1].partition(".")[0])
        jobs = jobs_below(cluster, schedd_name)
        if any(job.global_job_id == dagman for job in jobs):
            return jobs
    by_jobs = dagman_by_jobs(workflow, schedd_name)
    if by_jobs is not None:
        return jobs_below(by_jobs, schedd_name)
    raise Refused("not-found", f"{dag} has no DAGMan in this queue; submit it, or name --schedd")


def _is_ours(job: Job) -> bool:
    codes = job.count("HoldReasonCode"), job.count("HoldReasonSubCode")
    return codes == (_USER_REQUEST, OUR_SUBCODE)


def _told(dagmen: list[Job], nodes: list[Job]) -> str:
    plural = "DAGMan's job" if len(dagmen) == 1 else f"{len(dagmen)} jobs of DAGMan"
    return f"{plural} and {len(nodes)} of its nodes' jobs"
