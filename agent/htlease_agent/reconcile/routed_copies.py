"""Routed copies among the submissions of a subjob; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from htlease.condor.schedd import Plain
from htlease_agent.reconcile.job_end import End


def links_of(source: Mapping[str, Plain], body: Mapping[str, Any]) -> dict[str, str]:
    """Return the IDs of a route by which people look for it, from the submitter's to the batch's.

    A grid universe job's own ID in the batch system is the last word of `GridJobId`, and people
    leave out what stands before its last slash: `batch slurm ... slurm/20260102/4711`.
    """
    grid_job_id = str(body.get("grid_job_id") or "")
    in_batch = grid_job_id.split()[-1:]
    links = {
        "submitter": source.get("SubmitterGlobalJobId"),
        "source": source.get("GlobalJobId"),
        "source-job": body.get("job"),
        "routed-job": body.get("routed_job"),
        "grid": grid_job_id,
        "batch": "".join(in_batch).rpartition("/")[2],
    }
    return {name: str(value) for name, value in links.items() if value}


def as_of_copy(end: End, subjob: Mapping[str, Any]) -> End:
    """Return a source's end as that of the copy that now works for it; others as they are.

    Copies may be sources again: a CE's job, its copy at the site, and that one's copy.
    """
    jobs: dict[int, str] = {}
    sources: dict[str, str] = {}
    for submission in subjob["submissions"]:
        job = submission["global_job_id"]
        if job is not None:
            jobs[submission["epoch"]] = job
    for submission in subjob["submissions"]:
        job, source = jobs.get(submission["epoch"]), submission["links"].get("source")
        if job is not None and source is not None:
            sources[job] = source
    newest = job = jobs.get(subjob["epoch"])
    for _ in range(len(sources)):
        job = sources.get(job or "")
        if job == end.global_job_id and newest is not None:
            return replace(end, global_job_id=newest)
    return end
