"""How the run of a DAG before this one ended, told by the first script of the next one.

DAGMan calls no POST script when it is removed, nor for the jobs that it removes when it aborts, so
nobody has told the server. What the history does not say is not guessed.
"""

from __future__ import annotations

from htlease.condor.hold_codes import removed_by
from htlease.condor.queued_ad import REMOVED
from htlease.errors import Refused
from htlease_dagman.scripts.node_script import Script
from htlease_dagman.scripts.queue_ad import read_ad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_NAMES = ("GlobalJobId", "JobStatus", "RemoveReason")


def tell_of_removal(script: Script) -> None:
    """Record who removed the node's last job, or the DAG; raises ServerUnavailable.

    A server that does not want to know is no reason not to run the node.
    """
    for job in left_open(script.document(), script.call.dag):
        ad = read_ad("condor_history", job_number(job), _NAMES)
        if ad.get("GlobalJobId") != job or ad.get("JobStatus") != REMOVED:
            continue
        reason = str(ad.get("RemoveReason", ""))
        try:
            script.send(
                "observed",
                global_job_id=job,
                what="removed",
                by=removed_by(reason),
                reason=reason or None,
            )
        except Refused as refused:
            script.say(f"the server was not told that {job} was removed: {refused}")


def left_open(document: Mapping[str, Any], dag: str) -> Sequence[str]:
    """Return the jobs to ask about: the node's last one and its DAGMan's, of an earlier run.

    Nothing when the node was closed, when this run began it, or when all is told already.
    """
    before = [one["global_job_id"] for one in document["submissions"][:-1] if one["global_job_id"]]
    dags = [name.rpartition("/")[0] for name in before if "/" in name]
    if document["outcome"] is not None or not dags or dags[-1] == dag:
        return ()
    jobs = [name for name in before[-1:] if "/" not in name]
    return [job for job in [*jobs, dags[-1]] if job not in document["removed_jobs"]]


def job_number(global_job_id: str) -> str:
    """Return `12.0` of `ap1#12.0#1795225431`."""
    return global_job_id.rpartition("#")[0].rpartition("#")[2]
