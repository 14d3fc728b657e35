"""The jobs of a DAG in the schedd: its DAGMan, those of its sub-DAGs, and their nodes' jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from htlease.client.client import LeaseServer
from htlease.condor.bindings_process import read_jobs
from htlease.condor.queued_ad import COMPLETED, HELD, REMOVED, integer, job_number
from htlease.condor.schedd import Plain
from htlease.errors import InvalidField, Refused
from htlease.rules import messages as m
from htlease.rules.attempt import SubjobKey

#: JobStatus of jobs that can be held.
_LIVE = f"JobStatus =!= {REMOVED} && JobStatus =!= {COMPLETED}"
_SCHEDULER_UNIVERSE = 7
_ATTRIBUTES = (
    *("ClusterId", "ProcId", "GlobalJobId", "JobStatus", "JobUniverse", "DAGManJobId"),
    *("HTLeaseKey", "HoldReason", "HoldReasonCode", "HoldReasonSubCode"),
)


@dataclass(frozen=True)
class Job:
    """A job of a DAG in the queue."""

    ad: Mapping[str, Plain]

    @property
    def id(self) -> str:
        """Cluster and process, e.g. `12.0`."""
        return job_number(self.ad)

    @property
    def global_job_id(self) -> str:
        """The ID that no other job ever has."""
        return str(self.ad["GlobalJobId"])

    @property
    def is_held(self) -> bool:
        """Whether it is held, by whomever."""
        return self.ad.get("JobStatus") == HELD

    @property
    def is_dagman(self) -> bool:
        """Whether it runs a DAG, rather than being a node's own job."""
        return self.ad.get("JobUniverse") == _SCHEDULER_UNIVERSE

    @property
    def subjob(self) -> SubjobKey | None:
        """The subjob that it works on; None where its ad does not say."""
        try:
            return SubjobKey.parse(str(self.ad.get("HTLeaseKey", "")))
        except InvalidField:
            return None

    def count(self, name: str) -> int | None:
        """Return a number of its ad, or None."""
        return integer(self.ad, name)


def jobs_below(dagman_cluster: int, schedd_name: str | None = None) -> list[Job]:
    """Return the jobs of a DAG and of the DAGs below it, DAGMan's own first.

    Raises ScheddUnavailable.
    """
    found: dict[str, Job] = {}
    clusters, asked = {dagman_cluster}, set[int]()
    while clusters - asked:
        wanted = sorted(clusters - asked)
        asked |= clusters
        of = " || ".join(f"DAGManJobId == {one} || ClusterId == {one}" for one in wanted)
        for ad in read_jobs(f"({of}) && {_LIVE}", _ATTRIBUTES, schedd_name):
            job = Job(ad)
            found[job.id] = job
            if job.is_dagman:
                clusters.add(int(ad["ClusterId"]))
    return sorted(found.values(), key=lambda job: not job.is_dagman)


def dagman_by_jobs(workflow: str, schedd_name: str | None = None) -> int | None:
    """Return the cluster of the DAGMan that has submitted a workflow's jobs, while it has some.

    Watchers of transfers are announced by no PRE script. Raises ScheddUnavailable.
    """
    is_of_it = f'substr(HTLeaseKey ?: "", 0, {len(workflow) + 1}) =?= "{workflow}/"'
    ads = read_jobs(f"{is_of_it} && {_LIVE}", ("DAGManJobId",), schedd_name)
    return max((int(ad["DAGManJobId"]) for ad in ads if "DAGManJobId" in ad), default=None)


def report(
    server: LeaseServer, jobs: Iterable[Job], what: str, **fields: Any
) -> Iterator[tuple[Job, SubjobKey]]:
    """Tell the server what was done to jobs; yield those of which it knows the subjob."""
    for job in jobs:
        key = job.subjob
        if key is None:
            continue
        try:
            server.command(key, m.Observed(job.global_job_id, what, **fields))
        except Refused as refused:
            if refused.code != "unknown-subjob":
                raise
        else:
            yield job, key
