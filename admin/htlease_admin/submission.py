"""Carrying a submission out wholly or not at all.

The order is what keeps it whole: enrol, make tokens, queue. A server that is away stops it before
anything is queued; if the queue refuses, what was enrolled is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from htlease.attempt import SubjobKey
from htlease.errors import HTLeaseError
from htlease.messages import TEXT_MAX_CHARS
from htlease.plan import Plan
from htlease_admin import schedd
from htlease_admin.enrolment import Enrolment
from htlease_admin.lease_server import LeaseServer
from htlease_admin.schedd import QueuedJob, ScheddUnavailable, SubmitRefused
from htlease_admin.submit_file import Description
from htlease_admin.token_files import TokenFiles


@dataclass(frozen=True)
class Submission:
    """Everything that is settled before the first call."""

    id: str
    description: Description
    keys: tuple[SubjobKey, ...]
    plan: Plan | None
    tokens: TokenFiles
    token_ttl_seconds: float
    schedd_name: str | None
    force: bool


def carry_out(
    submission: Submission, server: LeaseServer, say: Callable[[str], None]
) -> list[QueuedJob]:
    """Enrol, make tokens, queue, bind; raises what stopped it, with nothing left half done."""
    schedd.locate(submission.schedd_name)
    enrolment = Enrolment(server, submission.plan, submission.force)
    try:
        for process, key in enumerate(submission.keys):
            enrolment.enroll(key)
            minted = server.mint_token(key.workflow, key.subjob, submission.token_ttl_seconds)
            submission.tokens.write(process, minted["token"])
    except BaseException as error:  # an interrupt, too, comes before anything is queued
        _take_back(submission, enrolment, error, say)
        raise
    try:
        jobs = _queue(submission, say)
    except SubmitRefused as refusal:
        _take_back(submission, enrolment, refusal, say)
        raise
    for job in jobs:
        _bind(enrolment, job, say)
    return jobs


def _queue(submission: Submission, say: Callable[[str], None]) -> list[QueuedJob]:
    """Queue the jobs and return them; an ID is missing where a job has left the queue already."""
    try:
        cluster, warnings = schedd.submit(submission.description, submission.schedd_name)
    except SubmitRefused as refusal:
        found = _jobs_after(refusal, submission)
        if not found:
            raise
        cluster = found[0].cluster
    else:
        for warning in warnings:
            say(warning)
        try:
            found = schedd.jobs_of_submission(submission.id, submission.schedd_name)
        except ScheddUnavailable:
            found = []
    by_process = {job.proc: job for job in found}
    return [
        by_process.get(process) or QueuedJob(cluster, process, None, str(key))
        for process, key in enumerate(submission.keys)
    ]


def _jobs_after(refusal: SubmitRefused, submission: Submission) -> list[QueuedJob]:
    """Look whether the jobs are queued although it seems otherwise: the answer may be lost."""
    try:
        return schedd.jobs_of_submission(submission.id, submission.schedd_name)
    except ScheddUnavailable as error:
        raise ScheddUnavailable(
            f"{refusal}; {error}; so whether the jobs were queued is not known: look with "
            f"`condor_q -constraint 'HTLeaseSubmission == \"{submission.id}\"'`, and `htlease "
            f"cancel` the subjobs ({submission.keys[0]} ...) if there are none"
        ) from refusal


def _bind(enrolment: Enrolment, job: QueuedJob, say: Callable[[str], None]) -> None:
    if job.global_job_id is None:
        return  # it ran, so its first attempt has told the server
    try:
        enrolment.bind(SubjobKey.parse(job.key), job.global_job_id)
    except HTLeaseError as error:
        say(
            f"{job.key} could not be told its job {job.cluster}.{job.proc} ({error}); harmless, "
            "the job's first attempt tells it"
        )


def _take_back(
    submission: Submission,
    enrolment: Enrolment,
    error: BaseException,
    say: Callable[[str], None],
) -> None:
    """Remove the tokens and cancel what was enrolled, and say what came of it."""
    submission.tokens.remove()
    left = enrolment.take_back(f"not submitted: {error}"[:TEXT_MAX_CHARS])
    for sentence in left:
        say(sentence)
    cancelled = len(enrolment.epochs) - len(left)
    say(f"nothing was submitted; {cancelled} subjob(s) that were enrolled are cancelled")
